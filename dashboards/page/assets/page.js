/* The page's own lines: draw what the server sends, follow the theme, keep the controls and the address one. */
(() => {
  "use strict";
  const { make, ...shapes } = loadtestShapes;
  const THEMES = ["auto", "light", "dark"];
  const root = document.documentElement;
  const board = document.getElementById("board");
  const panels = new Map();
  root.classList.add("scripted");

  /* Theme */

  function remembered() {
    try {
      return localStorage.getItem("loadtest-theme");
    } catch {
      return null;
    }
  }

  function setTheme(theme) {
    root.dataset.theme = theme;
    document.getElementById("theme").textContent = `Theme: ${theme}`;
    panels.forEach((panel) => panel.chart?.redraw());
  }

  function followTheme() {
    const button = document.getElementById("theme");
    if (!button) return;
    button.hidden = false;
    setTheme(THEMES.includes(remembered()) ? remembered() : "auto");
    button.addEventListener("click", () => {
      const next = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
      try {
        localStorage.setItem("loadtest-theme", next);
      } catch {
        /* then the choice lasts as long as the page */
      }
      setTheme(next);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => panels.forEach((panel) => panel.chart?.redraw()));
  }

  /* Panels. One that is out of sight is drawn when it comes into sight. */

  const inSight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const panel = panels.get(target.dataset.panel);
      panel.seen = isIntersecting;
      if (isIntersecting && panel.waiting) draw(panel);
    }
  }, { rootMargin: "300px" });

  function receive(drawing) {
    const panel = panels.get(drawing.panel);
    panel.drawing = drawing;
    panel.waiting = true;
    panel.el.setAttribute("aria-busy", "false");
    panel.el.dataset.state = drawing.state;
    panel.el.dataset.took = drawing.took_ms ?? 0;
    const figures = panel.el.querySelector(".figures");
    if (figures) figures.hidden = drawing.state !== "ok";
    const picture = drawing.state === "ok" && !(drawing.shape.kind in shapes);
    if (panel.seen || !picture) draw(panel); /* what the keyboard reaches is there, in sight or not */
  }

  function draw(panel) {
    const { el, drawing } = panel;
    panel.waiting = false;
    const plot = el.querySelector(".plot");
    const figures = el.querySelector(".figures");
    if (drawing.state !== "ok") {
      panel.chart?.destroy();
      panel.chart = null;
      el.querySelector(".answer").textContent = "";
      el.querySelector(".unit").textContent = "";
      const words = drawing.state === "failed" ? `This could not be read. ${drawing.answer}` : drawing.answer;
      plot.removeAttribute("role");
      plot.replaceChildren(make("p", { class: `empty ${drawing.state}` }, words));
      return;
    }
    el.querySelector(".answer").textContent = drawing.answer;
    if (drawing.shape.kind in shapes) plot.replaceChildren(shapes[drawing.shape.kind](drawing.shape));
    else drawChart(panel, plot, drawing);
    if (figures?.open) fillFigures(panel);
  }

  function drawChart(panel, plot, { answer, shape }) {
    shape.height = Number(plot.dataset.height);
    const log = (axis) => (axis.log ? ", logarithmic" : "");
    panel.el.querySelector(".unit").textContent = `${shape.y.label}${log(shape.y)}, against ${shape.x.label}`;
    legend(panel.el, shape.kind === "stack" ? shape.series : []);
    const question = panel.el.querySelector("h2").textContent;
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", `${question} ${answer} The figures are in the table below.`);
    if (panel.chart) panel.chart.update(shape);
    else {
      plot.replaceChildren();
      panel.chart = loadtestCharts.chart(shape, plot);
    }
  }

  /* Lines have their names where they end; the parts of a stack are named above it. */
  function legend(el, series) {
    el.querySelector(".legend")?.remove();
    if (!series.length) return;
    const items = series.map((line) => make("li", {}, make("i", { class: `block k-${line.color} shade${line.shade}` }), line.label));
    el.querySelector(".plot").before(make("ul", { class: "legend" }, ...items));
  }

  /* The table beside a chart: the same values, and for each the way to what is behind it. */
  function fillFigures(panel) {
    const { shape, links } = panel.drawing;
    const box = panel.el.querySelector(".figures .scroll");
    if (shape.kind === "states") box.replaceChildren(statesTable(shape));
    else box.replaceChildren(shape.heat ? heatTable(shape) : lineTable(shape, links ?? []));
  }

  const utc = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ");
  const number = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });
  const atX = (shape, x) => (shape.x.unit === "utc" ? utc(x) : number.format(x));

  function lineTable(shape, links) {
    const head = [shape.x.label, ...shape.series.map((line) => line.name ?? line.label)];
    const rows = shape.x.values.flatMap((x, i) => {
      if (shape.series.every((line) => line.values[i] == null)) return [];
      const cells = shape.series.map((line, k) => {
        const text = line.values[i] == null ? "–" : number.format(line.values[i]);
        const link = links[k]?.[0];
        return make("td", {}, link && line.values[i] != null ? make("a", { href: address(link, x), title: link.title }, text) : text);
      });
      return [make("tr", {}, make("th", { scope: "row" }, atX(shape, x)), ...cells)];
    });
    return filled(head, rows, shape);
  }

  function heatTable(shape) {
    const { edges, cells } = shape.heat;
    const rows = [...cells].sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([x, y, n]) =>
      make("tr", {}, make("th", { scope: "row" }, atX(shape, shape.x.values[x])),
        make("td", {}, `${number.format(edges[y])} to ${number.format(edges[y + 1])}`), make("td", {}, number.format(n))));
    return filled([shape.x.label, shape.y.label, "how many"], rows, shape);
  }

  function statesTable({ lanes, words }) {
    const rows = lanes.flatMap((lane) => lane.segments.map((s) => make("tr", {}, make("th", { scope: "row" }, lane.name),
      make("td", {}, utc(s.start)), make("td", {}, utc(s.end)), make("td", {}, words[s.state]))));
    return make("table", {}, make("thead", {}, make("tr", {}, ...["", "from, UTC", "to, UTC", "state"].map((word) => make("th", { scope: "col" }, word)))),
      make("tbody", {}, ...rows));
  }

  const filled = (head, rows, shape) =>
    make("table", {}, make("caption", { class: "small left" }, `Values in ${shape.y.label || "numbers"}`),
      make("thead", {}, make("tr", {}, ...head.map((word) => make("th", { scope: "col" }, word)))), make("tbody", {}, ...rows));

  function address({ path, query, around_s: around }, at) {
    const all = new URLSearchParams(query);
    const stamp = (seconds) => `${new Date(seconds * 1000).toISOString().slice(0, 19)}Z`;
    if (around != null) {
      all.set("from", stamp(at - around));
      all.set("to", stamp(at + around));
    }
    return `${path}?${all}`;
  }

  function followPicks() {
    board.addEventListener("pick", ({ target, detail }) => {
      const panel = panels.get(target.closest("[data-panel]").dataset.panel);
      const link = panel.drawing.links?.[detail.series]?.[0];
      if (link) location.assign(address(link, detail.at));
    });
  }

  /* The stream */

  function listen() {
    const query = new URLSearchParams();
    panels.forEach(({ el }, name) => {
      const { top, bottom } = el.getBoundingClientRect();
      if (top < innerHeight && bottom > 0) query.append("sight", name); /* these first */
    });
    const source = new EventSource(`${board.dataset.events}&${query}`);
    const trouble = document.getElementById("trouble");
    const say = (words) => {
      trouble.hidden = !words;
      trouble.textContent = words;
    };
    const on = (name, act) => source.addEventListener(name, ({ data }) => {
      say("");
      act(JSON.parse(data));
    });
    on("status", showStatus);
    on("panel", receive);
    on("options", showOptions);
    on("end", () => {
      source.close();
      document.getElementById("pause").hidden = true;
      root.dataset.feed = "ended";
    });
    source.addEventListener("failed", ({ data }) => say(`${JSON.parse(data).words} Trying again.`));
    source.addEventListener("error", () => {
      if (root.dataset.feed === "ended") return;
      const over = source.readyState === EventSource.CLOSED;
      say(over ? "The page's server refused to go on; load the page again." : "loadtest ui does not answer; what is shown is as of the time above. Trying again.");
    });
    return source;
  }

  let shownStatus = "";
  function showStatus(status) {
    root.dataset.feed = status.live ? "live" : "still";
    document.getElementById("pause").hidden = !status.live;
    document.getElementById("asof").textContent = `${status.live ? "as of" : "until"} ${status.end.slice(11, 19)} UTC`;
    if (shownStatus === status.head + status.happened) return;
    shownStatus = status.head + status.happened;
    document.getElementById("status").innerHTML = status.head; /* markup of the server's own, escaped there */
    const happened = document.getElementById("happened"); /* where a run is shown */
    if (happened) happened.innerHTML = status.happened;
  }

  function pauses() {
    const button = document.getElementById("pause");
    let source = listen();
    button.addEventListener("click", () => {
      const paused = button.textContent === "Go on";
      button.textContent = paused ? "Pause" : "Go on";
      if (paused) source = listen();
      else source.close();
    });
    addEventListener("pagehide", () => source.close());
  }

  /* Controls */

  function showOptions(options) {
    for (const box of document.querySelectorAll("[data-options]")) {
      const values = options[box.dataset.options] ?? [];
      if (box instanceof HTMLSelectElement) {
        const known = new Set([...box.options].map((option) => option.value));
        values.filter((value) => !known.has(value)).forEach((value) => box.append(make("option", { value }, value)));
      } else {
        const known = new Set([...box.querySelectorAll("input")].map((input) => input.value));
        values.filter((value) => !known.has(value)).forEach((value) =>
          box.append(make("label", {}, make("input", { type: "checkbox", name: box.dataset.options, value }), value)));
      }
    }
  }

  function followControls(form) {
    form.addEventListener("submit", () => {
      for (const field of form.elements) if (!field.value) field.disabled = true; /* what says nothing is not in the address */
    });
    form.addEventListener("change", ({ target }) => {
      if (target.name === "last") for (const name of ["from", "to"]) form.elements[name].value = "";
      if (target.type !== "text" && target.name !== "from" && target.name !== "to") form.requestSubmit();
    });
    form.addEventListener("toggle", ({ target }) => {
      if (target.open) form.querySelectorAll("details[open]").forEach((other) => (other.open = other === target));
    }, true);
    addEventListener("keydown", ({ key }) => {
      if (key === "Escape") form.querySelectorAll("details[open]").forEach((details) => (details.open = false));
    });
  }

  /* Two runs to compare, no more and no fewer */

  function followChoice(button) {
    const boxes = [...button.form.querySelectorAll("input[type=checkbox]")];
    const count = () => {
      const n = boxes.filter((box) => box.checked).length;
      button.disabled = n !== 2;
      boxes.forEach((box) => (box.disabled = n >= 2 && !box.checked));
    };
    boxes.forEach((box) => box.addEventListener("change", count));
    count();
  }

  /* Parts of a page that take the store a while */

  async function fetchPart(el) {
    try {
      const answer = await fetch(el.dataset.part);
      el.innerHTML = await answer.text(); /* markup of the server's own, escaped there */
    } catch {
      el.replaceChildren(make("p", { class: "empty failed" }, "loadtest ui does not answer; load the page again when it does."));
    }
    el.setAttribute("aria-busy", "false");
  }

  followTheme();
  document.querySelectorAll("[data-part]").forEach(fetchPart);
  const compare = document.getElementById("compare");
  if (compare) followChoice(compare);
  if (board) {
    board.querySelectorAll("[data-panel]").forEach((el) => {
      panels.set(el.dataset.panel, { el, chart: null, seen: false, waiting: false });
      inSight.observe(el);
      el.querySelector(".figures")?.addEventListener("toggle", ({ target }) => {
        if (target.open) fillFigures(panels.get(el.dataset.panel));
      });
    });
    followPicks();
    followControls(document.getElementById("controls"));
    pauses();
  }
  performance.mark("interactive");
})();
