// What the page does in the browser: light and dark, the selection in the URL.
// No framework and no file from elsewhere; charts.js draws, this file does the rest.
window.tunesmith = window.tunesmith || {};

// Gradio keeps a loading status for each input of every event that ever ran and looks each one up in
// the whole page at each tick: with the settings of Configure that takes all of a core, from the
// training too. Of an event that shows no progress (webui/app.py) the inputs become one status, which
// belongs to nothing. Where Gradio comes to copy them, this has no effect.
for (const event of (window.gradio_config || {}).dependencies || []) {
  if (event.show_progress === "hidden" && event.inputs.length > 1) {
    event.inputs[Symbol.isConcatSpreadable] = false;
  }
}

(() => {
  const KEY = "tunesmith-theme";
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  // The reader's choice if there is one, else the system's.
  function wantsDark() {
    const chosen = localStorage.getItem(KEY);
    return chosen ? chosen === "dark" : system.matches;
  }

  function applyTheme() {
    document.body.classList.toggle("dark", wantsDark());
    document.documentElement.style.colorScheme = wantsDark() ? "dark" : "light";
    document.dispatchEvent(new Event("tunesmith:theme"));
  }

  tunesmith.toggleTheme = () => {
    localStorage.setItem(KEY, wantsDark() ? "light" : "dark");
    applyTheme();
  };

  system.addEventListener("change", () => {
    localStorage.removeItem(KEY);
    applyTheme();
  });
  applyTheme();

  // ?run=, ?dataset= and ?tab= follow the page, so that a reload shows the same thing.
  tunesmith.setUrl = (values) => {
    const url = new URL(window.location.href);
    for (const [name, value] of Object.entries(values)) {
      if (value) url.searchParams.set(name, value);
      else url.searchParams.delete(name);
    }
    window.history.replaceState(window.history.state, "", url);
  };

  // The hidden boxes decide. They are looked at, because Gradio's own change events may wait many
  // seconds behind others, and a reload in between would lose the selection.
  const seen = {};
  setInterval(() => {
    for (const name of ["run", "dataset"]) {
      const box = document.querySelector(`#selected-${name} textarea, #selected-${name} input`);
      if (!box || box.value === seen[name]) continue;
      const untouched = seen[name] === undefined && !box.value;
      seen[name] = box.value;
      if (!untouched) tunesmith.setUrl({ [name]: box.value });
    }
  }, 250);

  // The address follows, and only the shown tab's timer ticks. In the order of the tabs.
  tunesmith.tabShown = () => {
    const tabs = [...document.querySelectorAll('#tabs > .tab-wrapper [role="tab"]')];
    const shown = tabs.find((tab) => tab.getAttribute("aria-selected") === "true");
    if (shown) tunesmith.setUrl({ tab: shown.dataset.tabId });
    return tabs.map((tab) => ({ __type__: "update", active: tab === shown }));
  };

  // The values of the hidden boxes for run and data set, and the tab to open.
  tunesmith.selectionFromUrl = () => {
    const asked = new URL(window.location.href).searchParams;
    const tab = asked.get("tab");
    const known = tab && document.querySelector(`[role="tab"][data-tab-id="${CSS.escape(tab)}"]`);
    const update = known ? { __type__: "update", selected: tab } : { __type__: "update" };
    // The sample is what there is without a choice; said here, it cannot come after one.
    return [asked.get("run") || "", asked.get("dataset") || "sample", update];
  };
})();

// Whether the server answers. Runs do not need it, and the page goes on by itself when it is back.
(() => {
  const LOST = "The server does not answer. Runs go on without it; " +
    "this page goes on when it is back (python launch.py).";

  function tell(lost) {
    let note = document.querySelector("#lost");
    if (!lost) return note && note.remove();
    if (note) return;
    note = document.createElement("div");
    Object.assign(note, { id: "lost", textContent: LOST });
    note.setAttribute("role", "status");
    document.body.append(note);
  }

  setInterval(async () => {
    try {
      await fetch("tunesmith/alive", { cache: "no-store", signal: AbortSignal.timeout(10000) });
      tell(false);
    } catch {
      tell(true);
    }
  }, 4000);
})();

// The settings form: which fields matter, which differ from the preset, which are wrong. Fields in a
// closed fold are not in the document; they are marked when they appear.
(() => {
  let marks = { hidden: [], errors: {}, changed: {}, folds: {} };
  // Each form of the page has marks of its own; a field's path says whose it is.
  const forms = {};

  function line(field, kind, text) {
    const box = field.querySelector(":scope > .container") || field;
    let note = box.querySelector(`:scope > .${kind}`);
    if (!text) {
      if (note) note.remove();
      return null;
    }
    if (!note) {
      note = document.createElement("div");
      note.className = kind;
      box.append(note);
    }
    if (note.textContent !== text) note.textContent = text;
    return note;
  }

  function markField(field) {
    const path = field.dataset.path || (field.dataset.path = pathOf(field.id));
    const error = marks.errors[path];
    field.classList.toggle("is-hidden", marks.hidden.includes(path));
    field.classList.toggle("is-changed", path in marks.changed);
    field.classList.toggle("is-wrong", Boolean(error));
    line(field, "field-was", path in marks.changed ? `Preset: ${marks.changed[path]}` : "");
    line(field, "field-note", marks.notes && marks.notes[path]);
    const note = line(field, "field-error", error);
    if (note) note.id = `${field.id}-error`;
    for (const input of field.querySelectorAll("input, textarea")) {
      if (error) {
        input.setAttribute("aria-invalid", "true");
        input.setAttribute("aria-describedby", note.id);
      } else if (input.hasAttribute("aria-invalid")) {
        input.removeAttribute("aria-invalid");
        input.removeAttribute("aria-describedby");
      }
    }
  }

  // "field-training-learning_rate" -> "training.learning_rate"
  const pathOf = (id) => id.replace(/^field-/, "").replace("-", ".");

  function markAll() {
    for (const field of document.querySelectorAll(".field[id^='field-']")) markField(field);
    for (const [id, note] of Object.entries(marks.folds || {})) {
      const fold = document.getElementById(id);
      const title = fold && fold.querySelector(".label-wrap span");
      if (!title) continue;
      fold.classList.toggle("is-hidden", Boolean(note.empty));
      if (note.text) title.dataset.note = note.text;
      else delete title.dataset.note;
      title.toggleAttribute("data-wrong", note.wrong);
    }
  }

  tunesmith.markFields = (value, form = "") => {
    if (value) forms[form] = value;
    const all = Object.values(forms);
    marks = { hidden: all.flatMap((one) => one.hidden) };
    for (const key of ["errors", "notes", "changed", "folds"]) {
      marks[key] = Object.assign({}, ...all.map((one) => one[key]));
    }
    markAll();
  };

  // Values for the form (webui/forms.py): a field takes its value over unless somebody changed it
  // since the click that asked for them. Of two clicks the last one decides.
  let heldAtClick = [];
  tunesmith.asked = (held) => {
    heldAtClick = held.map((value) => JSON.stringify(value));
    return [];
  };
  tunesmith.filled = (text, held) => {
    const wanted = JSON.parse(text);
    return held.map((now, place) => {
      if (JSON.stringify(now) !== heldAtClick[place]) return now;
      heldAtClick[place] = JSON.stringify(wanted[place]);
      return wanted[place];
    });
  };

  let asked = false;
  new MutationObserver((changes) => {
    const fields = changes.some((change) =>
      [...change.addedNodes].some((node) => node.querySelector
        && (node.matches(".field") || node.querySelector(".field"))));
    if (!fields || asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      markAll();
    });
  }).observe(document.body, { childList: true, subtree: true });

  // Outside https and localhost a browser has no clipboard for scripts: the text stays selectable.
  tunesmith.copy = async (text) => {
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
  };
})();
