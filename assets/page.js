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

// Outside https and localhost a browser has no clipboard for scripts: the text stays selectable.
tunesmith.copy = async (text) => {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
};
