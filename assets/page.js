// What the page does in the browser: light and dark, the language, the selection in the URL.
// No framework and no file from elsewhere; charts.js draws, this file does the rest.
window.tunesmith = window.tunesmith || {};

// A sentence in the page's language. The template is one string, for its translators to find.
tunesmith._ = (template, values = {}) =>
  (window.tunesmithTexts?.[template] ?? template).replace(/\{(\w+)\}/g, (_all, name) => values[name]);

// What the page begins with, which the server has put into it (webui/data/tab.py). The welcome is
// drawn with it, or not: until Data's first answer shows or hides it.
tunesmith.first = JSON.parse(document.querySelector("#first")?.textContent ?? "{}");
document.documentElement.toggleAttribute("data-begun", tunesmith.first.begun !== false);
// What turns the first rows waits for their answer: Gradio may apply two quick answers in the order in
// which their requests were taken.
document.documentElement.toggleAttribute("data-first", "rows" in tunesmith.first);
tunesmith.begin = (name, props) => {
  if (name in tunesmith.first && !props.value) props.value = tunesmith.first[name];
};

// The page is another one in another language; what is shown stands in its address.
tunesmith.setLanguage = (code) => {
  const path = window.location.pathname.replace(/[^/]*$/, "");
  document.cookie = `tunesmith-language=${code}; path=${path}; max-age=31536000; samesite=lax`;
  window.location.reload();
};

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
    if (url.href !== window.location.href) window.history.replaceState(window.history.state, "", url);
  };

  // What is shown now, and of which run or data set: the address follows, and the tab, or the part of
  // Data, is told that it is open when it has something else to show.
  // A version that comes with the answer about a data set is no news of it.
  const selected = (place) =>
    document.querySelector(`${place} > .tab-wrapper [role="tab"][aria-selected="true"]`)
      ?.dataset.tabId;
  const last = {};
  // What is told of events, by its name (`unseen` in webui/context.py). It names those that are not
  // Gradio's own, which reads them in the script. A tab ticks from when it is drawn as its opening has it:
  // Gradio loses one of two answers about what is not there yet.
  const hearers = {}, missed = new Set();
  tunesmith.hears = (name, trigger) => {
    hearers[name] = trigger;
    if (missed.delete(name)) trigger("select");
  };
  const open = (name) => (hearers[name] ? hearers[name]("select") : missed.add(name));
  tunesmith.tick = (name) => hearers[name]?.("tick");
  let drawn = "";
  tunesmith.drawn = (tab) => {
    drawn = tab;
    if (tab === "data") document.documentElement.removeAttribute("data-begun");
  };
  tunesmith.ticking = () => (drawn && drawn === selected("#tabs") ? drawn : "");
  const soon = (done) => {
    requestAnimationFrame(() => setTimeout(done));
    setTimeout(done, 100);  // a page that is not seen has no frames
  };
  let place = "", visit = 0, asked = 0, started = false;
  tunesmith.shown = async (run, dataset, version, lens) => {
    const mine = ++asked;
    // Of several events that come together the last one sees all; when the page opens, none comes.
    // What the page begins with is drawn before it asks.
    const first = !place && "rows" in tunesmith.first;
    await new Promise((done) => (first ? soon(done) : setTimeout(done, place ? 20 : 0)));
    // What the address names is not in the boxes yet where no data set is: it comes in a moment.
    if (mine !== asked || !started || (!place && !dataset)) return;
    document.documentElement.removeAttribute("data-opening");
    const tab = selected("#tabs"), part = tab === "data" ? selected("#parts") : undefined;
    if (`${tab} ${part}` !== place) visit += 1;
    place = `${tab} ${part}`;
    const about = tab === "data" ? [visit, dataset, lens] : [visit, tab === "configure" ? dataset : run];
    const rows = tab === "data" && version.startsWith(`${dataset} `) ? version : "";
    for (const name of [tab, part].filter(Boolean)) {
      const before = last[name], now = { about: about.join("\n"), rows };
      last[name] = now;
      if (before && before.about === now.about && (before.rows === rows || !before.rows)) continue;
      if (name === tab) drawn = "";
      open(name);
    }
    tunesmith.setUrl({ run, dataset, tab });
  };

  // At once, before a tab is drawn: who loads the page again in that moment means this one.
  document.addEventListener("click", ({ target }) => {
    const tab = target.closest?.('#tabs > .tab-wrapper [role="tab"]')?.dataset.tabId;
    if (tab) tunesmith.setUrl({ tab });
  });

  // Gradio draws the first tab before it can open another.
  const wanted = new URL(window.location.href).searchParams.get("tab");
  document.documentElement.toggleAttribute("data-opening", Boolean(wanted && wanted !== "data"));

  // The values of the hidden boxes for run and data set, and the tab to open.
  tunesmith.selectionFromUrl = () => {
    const asked = new URL(window.location.href).searchParams;
    const tab = asked.get("tab");
    const known = tab && document.querySelector(`[role="tab"][data-tab-id="${CSS.escape(tab)}"]`);
    const update = known ? { __type__: "update", selected: tab } : { __type__: "update" };
    started = true;
    // The sample is what there is without a choice; said here, it cannot come after one.
    return [asked.get("run") || "", asked.get("dataset") || "sample", update];
  };
})();

// Whether the server answers: runs do not need it, and the page goes on by itself when it is back.
// And whether there may be something new to show (webui/pulse.py): then the shown tab ticks, and the
// header, at most each second.
(() => {
  const _ = tunesmith._;

  function tell(lost) {
    let note = document.querySelector("#lost");
    if (!lost) return note && note.remove();
    if (note) return;
    note = document.createElement("div");
    Object.assign(note, { id: "lost" });
    note.textContent = _("The server does not answer. Runs go on without it; this page goes on when it is back (python launch.py).");
    note.setAttribute("role", "status");
    document.body.append(note);
  }

  const SECOND = 1000;
  let pulse = "", failed = 0;
  async function ask() {
    try {
      const how = { cache: "no-store", signal: AbortSignal.timeout(10 * SECOND) };
      const now = await (await fetch("tunesmith/alive", how)).text();
      failed = 0;
      const tab = tunesmith.ticking();
      if (now !== pulse && tab) {
        pulse = now;
        for (const name of ["header", tab]) tunesmith.tick(name);
      }
    } catch {
      failed += 1;
    }
    tell(failed > 1);
    setTimeout(ask, SECOND);
  }
  setTimeout(ask, SECOND);
})();

// Outside https and localhost a browser has no clipboard for scripts: the text stays selectable.
tunesmith.copy = async (text) => {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
};

// Texts to label (webui/labelling.py): a button, or its number while a text has the focus, gives the
// label; the text after it has the focus then, also once the server has drawn them anew.
tunesmith.labels = (element, trigger) => {
  let next = null;
  const give = (button) => {
    const texts = [...element.querySelectorAll("[data-text]")];
    const at = texts.indexOf(button.closest("[data-text]"));
    next = texts[Math.min(at + 1, texts.length - 1)]?.dataset.text;
    trigger("apply", { id: button.dataset.id, label: button.dataset.label });
  };
  element.addEventListener("click", (event) => {
    const button = event.target.closest("[data-label]");
    if (button) give(button);
  });
  element.addEventListener("keydown", (event) => {
    const text = event.target.closest("[data-text]");
    const button = text?.querySelectorAll("[data-label]")[Number(event.key) - 1];
    if (button && !event.ctrlKey && !event.metaKey && !event.altKey) give(button);
  });
  new MutationObserver(() => {
    if (next !== null) element.querySelector(`[data-text="${next}"]`)?.focus();
    next = null;
  }).observe(element, { childList: true, subtree: true, attributes: true });
};

// A table (webui/tables.py): a heading sorts, a button turns the page or acts, a tick gathers, a row
// opens. Of the ticks only those of this page are known here.
tunesmith.table = (element, trigger) => {
  element.addEventListener("click", (event) => {
    const at = (name) => event.target.closest(`[data-${name}]`)?.dataset;
    const head = at("sort"), page = at("first"), act = at("act"), row = at("id");
    if (head) trigger("input", { sort: head.sort });
    else if (page) trigger("input", { first: Number(page.first) });
    else if (act) trigger(act.act === "again" ? "retry" : "apply", { act: act.act, id: act.id });
    else if (row && !event.target.closest("label, input")) trigger("select", { id: row.id });
  });
  element.addEventListener("change", (event) => {
    if (!event.target.matches("input[data-tick]")) return;
    const boxes = [...element.querySelectorAll("input[data-tick]")];
    const names = (some) => some.map((box) => box.dataset.tick);
    trigger("like", { ticked: names(boxes.filter((box) => box.checked)), shown: names(boxes) });
  });
  // Gradio puts another row into the same box, which a person's tick has made deaf to `checked`.
  new MutationObserver((changes) => {
    for (const { target } of changes) {
      if (target.dataset.tick) target.checked = target.hasAttribute("checked");
    }
  }).observe(element, { subtree: true, attributeFilter: ["checked", "data-tick"] });
};
