// Draws charts with plotly.js (from the installed package) in the page's own colours.
//   tunesmith.draw(element, figure)        any figure of webui/charts.py
//   tunesmith.live(element, value, watch)  the curves of the run in Train, added to as it learns
window.tunesmith = window.tunesmith || {};

(() => {
  let library = null;

  // plotly.js is large: it is fetched when the first chart is drawn.
  function plotly() {
    library = library || new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = "tunesmith/plotly.js";
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("plotly.js could not be loaded"));
      document.head.append(script);
    });
    return library;
  }

  const token = (name) => getComputedStyle(document.body).getPropertyValue(`--${name}`).trim();

  const CONFIG = {
    displaylogo: false,
    responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d"],
  };

  // The template: thin lines, a light grid, the page's font and colours.
  function layout(figure, small) {
    const text = token("ink-soft");
    const axis = {
      gridcolor: token("grid"), linecolor: token("line"), zeroline: false, automargin: true,
      tickfont: { size: small ? 10 : 11, color: text }, ticks: "", title: { standoff: 8 },
    };
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: token("sans"), size: 12, color: text },
      margin: small ? { l: 8, r: 8, t: 6, b: 8 } : { l: 8, r: 12, t: 28, b: 8 },
      xaxis: { ...axis, title: { text: small ? "" : figure.x, font: { size: 11 }, standoff: 6 },
               nticks: small ? 4 : 10, rangemode: "tozero" },
      yaxis: { ...axis, title: { text: small ? "" : figure.y, font: { size: 11 }, standoff: 6 },
               type: figure.log ? "log" : "linear", nticks: small ? 4 : 8,
               exponentformat: "e", minexponent: 4 },
      showlegend: !small && figure.legend !== false,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: 12, color: token("ink") } },
      hovermode: "x unified",
      hoverlabel: { bgcolor: token("surface"), bordercolor: token("line"),
                    font: { size: 12, color: token("ink") } },
      uirevision: figure.key || "",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: text, activecolor: token("ink") },
    };
  }

  function trace(line) {
    const colour = token(line.colour) || token("accent");
    const look = {
      line: { line: { color: colour, width: 2 }, mode: "lines" },
      faint: { line: { color: colour, width: 1 }, opacity: 0.35, mode: "lines", hoverinfo: "skip" },
      dashed: { line: { color: colour, width: 2, dash: "dash" }, mode: "lines" },
      dots: { line: { color: colour, width: 2 }, mode: "lines+markers",
              marker: { color: colour, size: 7 } },
    }[line.style || "line"];
    if (line.x.length === 1) Object.assign(look, { mode: "markers", marker: { color: colour } });
    return { type: "scatter", name: line.name, x: line.x, y: line.y,
             hovertemplate: "%{y:.4~g}", ...look, ...(line.more || {}) };
  }

  const drawn = new Map(); // element -> how to draw it again in other colours

  function remember(element, again) {
    if (!drawn.has(element)) {
      new ResizeObserver(() => {
        if (element.offsetWidth && window.Plotly && element.data) window.Plotly.Plots.resize(element);
      }).observe(element);
    }
    drawn.set(element, again);
  }

  document.addEventListener("tunesmith:theme", () => {
    for (const [element, again] of drawn) {
      if (element.isConnected) again();
      else drawn.delete(element);
    }
  });

  // Without a point there is nothing to measure: an empty frame and, in a large one, a word.
  function waiting(shape, small) {
    for (const axis of [shape.xaxis, shape.yaxis]) {
      Object.assign(axis, { showticklabels: false, range: [0, 1], type: "linear" });
    }
    const text = small ? "" : "Nothing to draw yet";
    const place = { x: 0.5, y: 0.5, xref: "paper", yref: "paper", showarrow: false };
    return { ...shape, uirevision: "waiting", annotations: [{ text, ...place }] };
  }

  tunesmith.draw = async (element, figure, small = false) => {
    const Plotly = await plotly();
    const shown = figure || { lines: [], x: "", y: "" };
    const lines = shown.lines.filter((line) => line.x.length);
    remember(element, () => tunesmith.draw(element, shown, small));
    const shape = layout(shown, small);
    await Plotly.react(
      element, lines.map(trace), lines.length ? shape : waiting(shape, small), CONFIG);
  };

  // -- Train: the curves of one run, added to as it learns

  const state = { run: null, generation: 0, counts: {}, seen: {}, curves: {}, log: false, raw: true };
  let box = null;

  // What this browser has, for the server to answer with what it lacks.
  tunesmith.cursor = () => {
    const lines = Object.values(state.curves).map((curve) => curve.x.length);
    const log = document.querySelector("#run-log .label-wrap");
    return JSON.stringify({
      run: box && box.isConnected ? state.run : null,
      generation: state.generation,
      counts: state.counts,
      drawn: Math.max(0, ...lines),
      seen: state.seen,
      log_open: Boolean(log && log.classList.contains("open")),
    });
  };

  const EMPTY = { x: [], y: [] };
  const curve = (name) => state.curves[name] || EMPTY;

  function figures() {
    const key = `${state.run} ${state.log}`;
    const loss = [
      { name: "Loss, each step", colour: "run-0", style: "faint", ...curve("loss"),
        more: { visible: state.raw } },
      { name: "Loss", colour: "run-0", style: "line", ...curve("loss_smooth") },
      { name: "Eval loss", colour: "run-1", style: "dots", ...curve("eval_loss") },
    ];
    const memory = curve("gpu_memory").x.length ? "gpu_memory" : "memory";
    const single = (name, from) => ({
      key, x: "step", y: "", lines: [{ name: "", colour: "run-0", style: "line", ...curve(from) }],
    });
    return {
      loss: { key, x: "step", y: "loss", log: state.log, lines: loss },
      learning_rate: single("learning_rate", "learning_rate"),
      grad_norm: single("grad_norm", "grad_norm"),
      tokens_per_second: single("tokens_per_second", "tokens_per_second"),
      memory: single("memory", memory),
    };
  }

  function redraw() {
    if (!box) return;
    const all = figures();
    for (const element of box.querySelectorAll("[data-curve]")) {
      const name = element.dataset.curve;
      tunesmith.draw(element, all[name], name !== "loss");
    }
  }

  function take(message) {
    if (!message) return;
    state.seen = message.seen || state.seen;
    const another = message.run !== state.run;
    if (another) Object.assign(state, { run: message.run, counts: {}, curves: {}, generation: 0 });
    if (message.counts) {
      if (message.whole) state.curves = {};
      for (const [name, points] of Object.entries(message.curves)) {
        const known = state.curves[name] || { x: [], y: [] };
        state.curves[name] = { x: known.x.concat(points.x), y: known.y.concat(points.y) };
      }
      state.counts = message.counts;
      state.generation = message.generation;
    }
    if (another || message.counts) redraw();
  }

  tunesmith.live = (element, value, watch) => {
    box = element;
    state.run = null; // what was drawn is gone with the old element
    state.seen = {};
    const first = value();
    // An addition alone is no whole; the next look asks for everything.
    if (first && first.whole) take(first);
    else redraw();
    watch("value", () => take(value()));
  };

  tunesmith.setLogScale = (on) => {
    state.log = on;
    redraw();
  };

  tunesmith.setRaw = (on) => {
    state.raw = on;
    redraw();
  };
})();
