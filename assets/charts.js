// Draws charts with plotly.js (from the installed package) in the page's own colours.
//   tunesmith.draw(element, figure)        any figure of webui/charts.py
//   tunesmith.live(element, value, watch)  the curves of the run in Train, added to as it learns
window.tunesmith = window.tunesmith || {};

(() => {
  const _ = tunesmith._;
  let library = null;

  // plotly.js is large: it is fetched when the first chart is drawn. While the server is gone it is
  // asked for again: charts come when it is back.
  function fetchPlotly(resolve) {
    const script = document.createElement("script");
    script.src = "tunesmith/plotly.js";
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      script.remove();
      setTimeout(fetchPlotly, 1000, resolve);
    };
    document.head.append(script);
  }

  function plotly() {
    library = library || new Promise(fetchPlotly);
    return library;
  }

  const token = (name) => getComputedStyle(document.body).getPropertyValue(`--${name}`).trim();

  const CONFIG = {
    displaylogo: false,
    responsive: true,
    // Nothing of a chart goes to anybody: plotly would offer to send it to its makers.
    modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "sendChartToCloud"],
    // plotly's own words, for the buttons that are left.
    locales: { "en-US": { dictionary: {
      "Download plot as a PNG": _("Download plot as a PNG"), "Zoom": _("Zoom"), "Pan": _("Pan"),
      "Autoscale": _("Autoscale"), "Reset axes": _("Reset axes"),
      "Double-click to zoom back out": _("Double-click to zoom back out"),
      "Double-click on legend to isolate one trace": _("Double-click on legend to isolate one trace"),
    } } },
  };

  // Where nothing can be hovered plotly would show its buttons all the time, over the curves.
  const hovers = window.matchMedia("(hover: hover)");

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
               nticks: small ? 4 : 10, rangemode: "tozero", type: figure.log_x ? "log" : "linear",
               ...(figure.log_x ? { dtick: "D2", tickformat: ",d" } : {}) },
      yaxis: { ...axis, title: { text: small ? "" : figure.y, font: { size: 11 }, standoff: 6 },
               type: figure.log ? "log" : "linear", nticks: small ? 4 : 8,
               exponentformat: "e", minexponent: 4 },
      showlegend: !small && figure.legend !== false,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: 12, color: token("ink") } },
      hovermode: "x unified",
      hoverlabel: { bgcolor: token("surface"), bordercolor: token("line"),
                    font: { size: 12, color: token("ink") } },
      uirevision: figure.key || "",
      ...marks(figure.marks || [], figure.log_x),
      modebar: { bgcolor: "rgba(0,0,0,0)", color: text, activecolor: token("ink") },
    };
  }

  // Lines across a chart, each with its word.
  function marks(wanted, logarithmic) {
    const across = { y0: 0, y1: 1, yref: "paper", layer: "above" };
    return {
      shapes: wanted.map((mark) => ({
        type: "line", x0: mark.x, x1: mark.x, ...across,
        line: { color: token(mark.colour), width: 2, dash: "dash" },
      })),
      annotations: wanted.map((mark) => ({
        // plotly takes an annotation's place on such an axis as a power of ten, a line's as it is.
        x: logarithmic ? Math.log10(mark.x) : mark.x, y: 1, yref: "paper", yanchor: "bottom",
        text: mark.text, showarrow: false, font: { size: 12, color: token(mark.colour) },
      })),
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
      bars: { line: { color: colour, width: 1, shape: "hv" }, mode: "lines", fill: "tozeroy",
              fillcolor: token(`${line.colour}-soft`), text: line.text,
              hovertemplate: "%{text}<extra></extra>" },
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
    const text = small ? "" : _("Nothing to draw");
    const place = { x: 0.5, y: 0.5, xref: "paper", yref: "paper", showarrow: false };
    return { ...shape, uirevision: "waiting", annotations: [{ text, ...place }] };
  }

  // A line for each run across an axis for each setting, the best in the accent.
  function across(figure) {
    const [worst, best] = figure.higher ? [0, 1] : [1, 0];
    return {
      type: "parcoords", dimensions: figure.parallel, labelfont: { size: 12, color: token("ink") },
      tickfont: { size: 11, color: token("ink-soft") }, rangefont: { size: 1, color: "rgba(0,0,0,0)" },
      line: { color: figure.scores, showscale: false, colorscale: [
        [Math.min(worst, best), token(best ? "line" : "accent")],
        [Math.max(worst, best), token(best ? "accent" : "line")]] },
    };
  }

  tunesmith.draw = async (element, figure, small = false) => {
    const Plotly = await plotly();
    const shown = figure || { lines: [], x: "", y: "" };
    if (shown.parallel) {
      remember(element, () => tunesmith.draw(element, shown, small));
      const place = { ...layout(shown, small), margin: { l: 56, r: 56, t: 40, b: 16 } };
      await Plotly.react(element, [across(shown)], place, { ...CONFIG, displayModeBar: false });
      return;
    }
    const lines = shown.lines.filter((line) => line.x.length);
    remember(element, () => tunesmith.draw(element, shown, small));
    const shape = layout(shown, small);
    await Plotly.react(
      element, lines.map(trace), lines.length ? shape : waiting(shape, small),
      { ...CONFIG, displayModeBar: hovers.matches ? "hover" : false });
  };

  // As many charts as there are figures, each with its title.
  tunesmith.drawAll = (box, figures) => {
    const wanted = figures || [];
    while (box.children.length > wanted.length) box.lastChild.remove();
    wanted.forEach((figure, place) => {
      if (!box.children[place]) {
        const element = document.createElement("figure");
        element.append(document.createElement("figcaption"), document.createElement("div"));
        element.lastChild.className = "chart";
        element.lastChild.setAttribute("role", "figure");
        box.append(element);
      }
      const [title, chart] = box.children[place].children;
      title.textContent = figure.title;
      chart.setAttribute("aria-label", figure.title);
      tunesmith.draw(chart, figure);
    });
  };

  // -- Train: the curves of one run, added to as it learns

  const state = {
    run: null, generation: 0, counts: {}, seen: {}, curves: {}, panels: [], digest: null,
    log: false, raw: true, all: false,
  };
  let box = null;

  // What this browser has, for the server to answer with what it lacks.
  tunesmith.cursor = () => {
    const lines = Object.values(state.curves).map((curve) => curve.x.length);
    const log = document.querySelector("#run-log .label-wrap");
    return JSON.stringify({
      run: box && box.isConnected ? state.run : null,
      generation: state.generation,
      counts: state.counts,
      digest: state.digest,
      all: state.all,
      drawn: Math.max(0, ...lines),
      seen: state.seen,
      log_open: Boolean(log && log.classList.contains("open")),
    });
  };

  const EMPTY = { x: [], y: [] };
  const curve = (name) => state.curves[name] || EMPTY;
  const key = () => `${state.run} ${state.log}`;

  function lossFigure() {
    const lines = [
      { name: _("Loss, each step"), colour: "run-0", style: "faint", ...curve("loss"),
        more: { visible: state.raw } },
      { name: _("Loss"), colour: "run-0", style: "line", ...curve("loss_smooth") },
      { name: _("Eval loss"), colour: "run-1", style: "dots", ...curve("eval_loss") },
    ];
    return { key: key(), x: _("training step"), y: _("loss"), log: state.log, lines };
  }

  function panelFigure(panel) {
    const lines = panel.lines.map((line) => ({
      name: line.name, colour: `run-${line.colour % 8}`, style: line.style, ...curve(line.metric),
    }));
    return { key: key(), x: _("training step"), y: "", lines };
  }

  // The frames of the small charts: title, sentence and, for several lines, which is which.
  function frames() {
    const rows = state.panels.map((panel) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = panel.title;
      const sentence = document.createElement("p");
      sentence.textContent = panel.sentence;
      const names = document.createElement("div");
      names.className = "keys";
      for (const line of panel.lines.length > 1 ? panel.lines : []) {
        const name = document.createElement("span");
        name.textContent = line.name;
        name.className = line.style;
        name.style.setProperty("--key", `var(--run-${line.colour % 8})`);
        names.append(name);
      }
      const chart = document.createElement("div");
      chart.className = "chart";
      chart.setAttribute("role", "figure");
      chart.setAttribute("aria-label", _("{title}. {what}", { title: panel.title, what: panel.sentence }));
      figure.append(caption, sentence, names, chart);
      return figure;
    });
    for (const chart of box.querySelectorAll(".multiples .chart")) inView.unobserve(chart);
    box.querySelector(".multiples").replaceChildren(...rows);
  }

  // The small charts are drawn where they are seen, when a line of theirs grew, and each at most
  // every few seconds: the cores belong to the training.
  const PAUSE = 3000; // milliseconds
  const inView = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      target.inView = isIntersecting;
      if (isIntersecting) drawPanel(target);
    }
  }, { rootMargin: "100px" });

  function drawPanel(chart) {
    const panel = chart.panel;
    if (!panel || !chart.inView || !chart.isConnected || chart.waits) return;
    // A long curve is thinned out: its length stays, its last point does not.
    const ends = panel.lines.map((line) => [curve(line.metric).x.length, curve(line.metric).x.at(-1)]);
    const grown = `${key()} ${state.generation} ${ends}`;
    if (chart.grown === grown) return;
    const early = (chart.drawnAt || 0) + PAUSE - performance.now();
    if (early > 0) {
      chart.waits = setTimeout(() => { chart.waits = 0; drawPanel(chart); }, early);
      return;
    }
    chart.grown = grown;
    chart.drawnAt = performance.now();
    tunesmith.draw(chart, panelFigure(panel), true);
  }

  function redraw() {
    if (!box) return;
    tunesmith.draw(box.querySelector(".chart.large"), lossFigure());
    const charts = box.querySelectorAll(".multiples .chart");
    if (charts.length !== state.panels.length) return; // the frames are not there yet
    state.panels.forEach((panel, place) => {
      const chart = charts[place];
      if (!chart.panel) inView.observe(chart);
      chart.panel = panel;
      drawPanel(chart);
    });
  }

  function take(message) {
    if (!message) return;
    state.seen = message.seen || state.seen;
    const another = message.run !== state.run;
    if (another) {
      Object.assign(state, {
        run: message.run, counts: {}, curves: {}, panels: [], digest: null, generation: 0,
      });
    }
    if (message.counts) {
      if (message.whole) state.curves = {};
      if (message.panels) {
        state.panels = message.panels;
        const drawn = new Set(["loss", "loss_smooth", "eval_loss"]);
        for (const panel of state.panels) for (const line of panel.lines) drawn.add(line.metric);
        for (const name of Object.keys(state.curves)) {
          if (!drawn.has(name)) delete state.curves[name];
        }
      }
      for (const [name, points] of Object.entries(message.curves)) {
        const known = state.curves[name] || { x: [], y: [] };
        state.curves[name] = { x: known.x.concat(points.x), y: known.y.concat(points.y) };
      }
      state.counts = message.counts;
      state.digest = message.digest;
      state.generation = message.generation;
    }
    if (another || message.panels) frames();
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

  tunesmith.setAll = (on) => {
    state.all = on; // the next look brings them
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
