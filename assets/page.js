// What the page does in the browser: light and dark, the selection in the URL.
// No framework and no file from elsewhere; charts.js draws, this file does the rest.
window.tunesmith = window.tunesmith || {};

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

  // The values of the hidden boxes for run and data set, and the tab to open.
  tunesmith.selectionFromUrl = () => {
    const asked = new URL(window.location.href).searchParams;
    const tab = asked.get("tab");
    const known = tab && document.querySelector(`[role="tab"][data-tab-id="${CSS.escape(tab)}"]`);
    const update = known ? { __type__: "update", selected: tab } : { __type__: "update" };
    return [asked.get("run") || "", asked.get("dataset") || "", update];
  };
})();
