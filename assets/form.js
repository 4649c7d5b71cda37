// The settings forms (webui/forms.py). A form is in one or several parts of the page; what its fields
// hold is here, whether their part is drawn or not, and each part hands Gradio its share as its value.
// What a person changed after the server was asked stays: each change has a number, the server's
// answer says up to which it had seen.
window.tunesmith = window.tunesmith || {};

tunesmith.form = (() => {
  const _ = tunesmith._;
  const forms = {};
  const NONE = { hidden: [], errors: {}, notes: {}, changed: {}, choices: {} };
  // So long nothing is typed before the server is told, in milliseconds.
  const PAUSE = 120;

  // The parts' shares are asked for before a part that was not opened yet is drawn.
  function formOf(name, shares = []) {
    const form = forms[name] || (forms[name] = {
      values: {}, choices: {}, edits: {}, count: 0, parts: [], open: new Set(), marks: NONE, marksAt: 0, draft: null, recalled: "",
    });
    for (const share of shares) form.values = { ...(share || {}).values, ...form.values };
    return form;
  }

  const share = (form, paths) => ({
    values: Object.fromEntries(paths.map((path) => [path, form.values[path]])),
    at: form.count,
  });

  // -- how the fields are drawn; what they hold comes after

  const SIGNS = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  const escape = (text) => String(text ?? "").replace(/[&<>"']/g, (sign) => SIGNS[sign]);
  const idOf = (path) => `field-${path.replaceAll(".", "-")}`;
  const withCode = (text) => escape(text).replace(/`([^`]+)`/g, "<code>$1</code>");

  function controlOf(field, id) {
    const fixed = field.fixed ? "disabled" : "", placeholder = escape(field.placeholder);
    const common = `id="${id}-input" aria-describedby="${id}-info" ${fixed}`;
    const options = (field.options || []).map(([text, value]) => [escape(text), escape(value)]);
    switch (field.control) {
      case "radio":
      case "checks": {
        const type = field.control === "radio" ? "radio" : "checkbox";
        return `<div class="wrap">${options.map(([text, value]) => `<label><input type="${type}"
          name="${id}" data-value="${value}" ${fixed}><span>${text}</span></label>`).join("")}</div>`;
      }
      case "check": return `<input type="checkbox" ${common}>`;
      case "select": return `<div class="input-container"><select ${common}>${options.map(
        ([text, value]) => `<option value="${value}">${text}</option>`).join("")}</select></div>`;
      case "combo":
      case "many": return `<div class="input-container">
        ${field.control === "many" ? '<span class="chosen"></span>' : ""}<input type="text"
        autocomplete="off" role="combobox" aria-expanded="false" aria-controls="${id}-list" ${common}
        placeholder="${placeholder}"><ul class="options" role="listbox" id="${id}-list" hidden></ul>
        </div>`;
      default: return `<div class="input-container"><textarea rows="${field.rows || 1}" ${common}
        placeholder="${placeholder}" spellcheck="false"></textarea></div>`;
    }
  }

  function fieldHtml(field) {
    const id = idOf(field.path), label = escape(field.label), many = field.control === "checks";
    const group = many || field.control === "radio";
    const about = `<div class="info-text" id="${id}-info">${withCode(field.help)}</div>`;
    const named = `role="${many ? "group" : "radiogroup"}" aria-labelledby="${id}-label"
      aria-describedby="${id}-info"`;
    return `<div class="field field-${field.kind}" id="${id}" data-path="${escape(field.path)}"
      data-control="${field.control}"><div class="container" ${group ? named : ""}>${group
        ? `<span class="label-text" id="${id}-label">${label}</span>`
        : `<label class="label-text" for="${id}-input">${label}</label>`}${about}${
        controlOf(field, id)}</div></div>`;
  }

  function groupHtml({ title, id, fields }) {
    const settings = `<div class="settings">${fields.map(fieldHtml).join("")}</div>`;
    return !title ? settings : `<details class="fold" id="${id}"><summary class="label-wrap"><span>${
      escape(title)}</span></summary>${settings}</details>`;
  }

  // -- what a control shows, and what a person did to it

  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  const input = (field) => field.querySelector("input, textarea, select");
  const boxes = (field) => [...field.querySelectorAll("[data-value]")];
  const pairs = (choices) => (choices || []).map((one) => (Array.isArray(one) ? one : [one, one]));

  function titleOf(form, path, value) {
    const known = pairs(form.choices[path]).find(([, other]) => other === value);
    return known ? known[0] : value === null || value === undefined ? "" : String(value);
  }

  function show(form, field) {
    const path = field.dataset.path, value = form.values[path];
    switch (field.dataset.control) {
      case "check": input(field).checked = Boolean(value); break;
      case "radio":
      case "checks":
        for (const box of boxes(field)) {
          const own = JSON.parse(box.dataset.value);
          box.checked = Array.isArray(value) ? value.includes(own) : same(value, own);
          box.parentElement.classList.toggle("selected", box.checked);
        }
        break;
      case "select": {
        const list = input(field), held = JSON.stringify(value);
        const offered = pairs(form.choices[path]);
        if (offered.length) {
          list.replaceChildren(...offered.map(([title, one]) => new Option(title, JSON.stringify(one))));
        }
        if (![...list.options].some((option) => option.value === held)) {
          list.add(new Option(String(value), held));
        }
        list.value = held;
        break;
      }
      case "many":
        field.querySelector(".chosen").replaceChildren(...(value || []).map((one) => {
          const chip = document.createElement("button");
          Object.assign(chip, { type: "button", className: "chip", textContent: one });
          chip.setAttribute("aria-label", _("{name}, remove", { name: one }));
          chip.dataset.remove = one;
          return chip;
        }));
        break;
      case "combo": input(field).value = titleOf(form, path, value); break;
      default: if (input(field).value !== (value ?? "")) input(field).value = value ?? "";
    }
  }

  function held(form, field) {
    const path = field.dataset.path;
    switch (field.dataset.control) {
      case "check": return input(field).checked;
      case "radio": return JSON.parse(boxes(field).find((box) => box.checked).dataset.value);
      case "checks":
        return boxes(field).filter((box) => box.checked).map((box) => JSON.parse(box.dataset.value));
      case "select": return JSON.parse(input(field).value);
      case "combo": {
        const known = pairs(form.choices[path]).find(([title]) => title === input(field).value);
        return known ? known[1] : input(field).value;
      }
      default: return input(field).value;
    }
  }

  // -- a change, by a person or by the server

  function take(form, path, value) {
    form.values[path] = value;
    for (const part of form.parts) {
      const field = part.fields[path];
      if (field) show(form, field);
    }
  }

  function changed(form, part, path, value) {
    form.values[path] = value;
    form.edits[path] = ++form.count;
    if (path === form.draft?.by) turnTo(form, value);
    else if (form.draft) form.draft.held[path] = value;
    keep(form);
    part.props.value = share(form, part.paths);
    clearTimeout(part.soon);
    part.soon = setTimeout(() => part.trigger("input", { path }), PAUSE);
    if (part.announced.includes(path)) part.trigger("select", { path });
  }

  function keep(form) {
    if (!form.draft) return;
    const { key, preset, held: mine, about } = form.draft;
    // The last one, and that of each data set.
    for (const place of [key, `${key} ${about}`]) {
      localStorage.setItem(place, JSON.stringify({ preset, held: mine, about }));
    }
  }

  function kept(place) {
    try {
      return JSON.parse(localStorage.getItem(place));
    } catch {
      return null; // not ours
    }
  }

  // Another data set: what is set from now on is kept for it, and what was last set with it comes
  // back; without such a draft all stays. `recalled` takes it to the server, which fills it in.
  function turnTo(form, about) {
    const draft = form.draft;
    if (draft.about === about) return;
    const found = kept(`${draft.key} ${about}`) || draft;
    const { preset, held: mine } = found;
    const stays = preset === draft.preset && same(mine, draft.held);
    form.recalled = stays ? "" : JSON.stringify({ preset, held: mine, back: true, at: form.count });
    Object.assign(draft, { about, preset, held: { ...mine } });
  }

  // The server's answer (`Form.fill`): which it is, and the new values of the parts, for Gradio.
  function fill(name, text, ...shares) {
    const form = formOf(name, shares);
    const filled = JSON.parse(text || "{}");
    // A handler that answers without it leaves the last one.
    if (!filled.asked || filled.asked === form.filled) {
      return [form.filled, ...shares.map((one) => share(form, Object.keys(one.values)))];
    }
    form.filled = filled.asked;
    Object.assign(form.choices, filled.choices);
    const at = filled.at ?? form.count;
    const draft = form.draft;
    if (draft && filled.preset) {
      draft.preset = filled.preset;
      const stays = (path) => filled.kept.includes(path) || (form.edits[path] || 0) > at;
      draft.held = Object.fromEntries(Object.entries(draft.held).filter(([path]) => stays(path)));
    }
    const values = Object.entries(filled.values || {});
    for (const [path, value] of values) {
      if ((form.edits[path] || 0) > at || same(form.values[path], value)) continue;
      take(form, path, value);
      if (path === draft?.by) {
        // With other values beside it, those are what is wanted with it.
        if (values.length > 1) draft.about = value;
        else turnTo(form, value);
      } else if (draft && !filled.preset) draft.held[path] = value;
    }
    for (const path of Object.keys(filled.choices || {})) {
      take(form, path, form.values[path]);
      for (const part of form.parts) part.fields[path]?.renew?.();
    }
    keep(form);
    return [form.filled, ...shares.map((one) => share(form, Object.keys(one.values)))];
  }

  // What was typed before the page was loaded again, with the data set `about` if there is such a
  // draft; from now on what is typed is kept under `key`, by what the field `by` holds.
  function restore(name, key, preset, by, about) {
    const last = kept(key), before = kept(`${key} ${about}`) || last;
    const form = formOf(name);
    form.draft = { key, by, about, preset, held: {}, ...before, about };
    form.recalled = before ? JSON.stringify({ ...before, back: last?.about !== before.about }) : "";
    return form.recalled;
  }

  // -- marks: which fields matter, differ from the preset or are wrong

  function line(field, kind, text) {
    const place = field.querySelector(":scope > .container");
    let note = place.querySelector(`:scope > .${kind}`);
    if (!text) {
      if (note) note.remove();
      return;
    }
    if (!note) {
      note = document.createElement("div");
      Object.assign(note, { className: kind, id: `${field.id}-${kind}` });
      place.append(note);
    }
    if (note.textContent !== text) note.textContent = text;
  }

  function markField(marks, field) {
    const path = field.dataset.path, error = marks.errors[path];
    field.classList.toggle("is-hidden", marks.hidden.includes(path));
    field.classList.toggle("is-changed", path in marks.changed);
    field.classList.toggle("is-wrong", Boolean(error));
    const was = path in marks.changed ? _("Preset: {value}", { value: marks.changed[path] }) : "";
    line(field, "field-was", was);
    line(field, "field-note", marks.notes[path]);
    line(field, "field-error", error);
    for (const one of field.querySelectorAll("input, textarea, select")) {
      if (error) {
        one.setAttribute("aria-invalid", "true");
        one.setAttribute("aria-errormessage", `${field.id}-field-error`);
      } else {
        one.removeAttribute("aria-invalid");
        one.removeAttribute("aria-errormessage");
      }
    }
  }

  function markFold(marks, fold) {
    const paths = [...fold.querySelectorAll(".field")].map((field) => field.dataset.path);
    const wrong = paths.filter((path) => marks.errors[path]).length;
    const differing = paths.filter((path) => path in marks.changed).length;
    fold.classList.toggle("is-hidden", paths.every((path) => marks.hidden.includes(path)));
    const title = fold.querySelector(".label-wrap span");
    if (!title) return;
    title.toggleAttribute("data-wrong", wrong > 0);
    if (wrong) title.dataset.note = _("{n} to mend", { n: wrong });
    else if (differing) title.dataset.note = _("{n} changed", { n: differing });
    else delete title.dataset.note;
  }

  function mark(name, value) {
    const form = formOf(name);
    // Without errors it is about an edit: what was wrong with other fields stays.
    const stays = (path) => (form.edits[path] || 0) <= form.marksAt;
    const errors = value.errors || Object.fromEntries(
      Object.entries(form.marks.errors).filter(([path]) => stays(path)));
    if (value.errors) form.marksAt = form.count;
    form.marks = { ...NONE, ...value, errors };
    Object.assign(form.choices, form.marks.choices);
    for (const part of form.parts) markPart(form, part);
  }

  function markPart(form, part) {
    for (const field of Object.values(part.fields)) markField(form.marks, field);
    for (const fold of part.element.querySelectorAll(":scope > *")) markFold(form.marks, fold);
  }

  // -- a part of a form is drawn

  function mount(name, element, props, trigger, watch) {
    const form = formOf(name, [props.value]);
    const paths = Object.keys(props.value.values);
    const { groups, choices, announced } = JSON.parse(props.drawn);
    Object.assign(form.choices, { ...choices, ...form.choices });
    element.innerHTML = groups.map(groupHtml).join("");
    const fields = Object.fromEntries(
      [...element.querySelectorAll(".field")].map((field) => [field.dataset.path, field]));
    const part = { element, props, trigger, paths, fields, announced };
    form.parts = [...form.parts.filter((one) => one.element.isConnected), part];
    for (const field of Object.values(fields)) show(form, field);
    // A fold that is drawn anew is as a person left it.
    for (const fold of element.querySelectorAll("details.fold")) {
      fold.open = form.open.has(fold.id);
      fold.addEventListener("toggle", () => form.open[fold.open ? "add" : "delete"](fold.id));
    }
    markPart(form, part);
    // Gradio may give a part that was just drawn its first value again, after something was typed.
    const toldAgain = () => {
      if (!same(props.value.values, share(form, paths).values)) props.value = share(form, paths);
    };
    watch("value", toldAgain);
    toldAgain();

    const did = (field, value) => changed(form, part, field.dataset.path, value);
    element.addEventListener("input", (event) => {
      const field = event.target.closest(".field");
      if (!field || field.dataset.control === "many") return;
      did(field, held(form, field));
      if (["radio", "checks"].includes(field.dataset.control)) show(form, field);
    });
    element.addEventListener("click", (event) => {
      const chip = event.target.closest("[data-remove]");
      if (!chip) return;
      const field = chip.closest(".field");
      did(field, form.values[field.dataset.path].filter((one) => one !== chip.dataset.remove));
      show(form, field);
      input(field).focus();
    });
    for (const field of Object.values(fields)) {
      if (["combo", "many"].includes(field.dataset.control)) offer(form, field, did);
    }
  }

  // -- a text box with a list: any text may be typed (ARIA's combobox)

  function offer(form, field, did) {
    const box = input(field), list = field.querySelector(".options"), path = field.dataset.path;
    const many = field.dataset.control === "many";
    let active = -1, looked = null; // what is looked for while the list is open

    function open(words) {
      looked = words;
      const taken = many ? form.values[path] || [] : [];
      const wanted = words.trim().toLowerCase();
      const found = pairs(form.choices[path]).filter(([title, value]) =>
        !taken.includes(value) && String(title).toLowerCase().includes(wanted)).slice(0, 200);
      list.replaceChildren(...found.map(([title, value], place) => {
        const item = document.createElement("li");
        Object.assign(item, { textContent: title, id: `${list.id}-${place}` });
        item.setAttribute("role", "option");
        item.setAttribute("aria-selected", String(!many && value === form.values[path]));
        item.dataset.option = JSON.stringify(value);
        return item;
      }));
      list.hidden = !found.length;
      box.setAttribute("aria-expanded", String(!list.hidden));
      point(-1);
    }

    function close() {
      looked = null;
      list.hidden = true;
      box.setAttribute("aria-expanded", "false");
      point(-1);
    }

    function point(place) {
      active = place;
      [...list.children].forEach((item, at) => item.classList.toggle("active", at === place));
      const item = list.children[place];
      if (item) {
        box.setAttribute("aria-activedescendant", item.id);
        item.scrollIntoView({ block: "nearest" });
      } else box.removeAttribute("aria-activedescendant");
    }

    function pick(value) {
      if (many) {
        const before = form.values[path] || [];
        if (value !== "" && !before.includes(value)) did(field, [...before, value]);
        box.value = "";
      } else did(field, value);
      show(form, field);
      close();
    }

    // Choices that come while somebody looks at the list.
    field.renew = () => looked !== null && open(looked);
    const typed = () => box.value.split(/[,\n]/).map((one) => one.trim()).filter(Boolean);
    box.addEventListener("focus", () => open(""));
    box.addEventListener("click", () => list.hidden && open(""));
    box.addEventListener("input", () => open(box.value));
    box.addEventListener("blur", () => {
      if (many) typed().forEach(pick);
      close();
    });
    // The box keeps the focus; the item is taken at the press.
    list.addEventListener("mousedown", (event) => {
      event.preventDefault();
      const item = event.target.closest("[data-option]");
      if (item) pick(JSON.parse(item.dataset.option));
    });
    box.addEventListener("keydown", (event) => {
      const most = list.children.length - 1;
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        if (list.hidden) open("");
        else if (event.key === "ArrowDown") point(active < most ? active + 1 : 0);
        else point(active > 0 ? active - 1 : most);
      } else if (event.key === "Enter") {
        event.preventDefault();
        const item = list.children[active];
        if (item) pick(JSON.parse(item.dataset.option));
        else if (many) typed().forEach(pick);
        else close();
      } else if (event.key === "Escape") close();
      else if (event.key === "Backspace" && many && !box.value) {
        const chips = form.values[path] || [];
        if (chips.length) did(field, chips.slice(0, -1));
        show(form, field);
      }
    });
  }

  return {
    mount, mark, fill, restore,
    field: fieldHtml,
    recalled: (name) => forms[name].recalled,
    value: (name, path) => forms[name].values[path],
  };
})();
