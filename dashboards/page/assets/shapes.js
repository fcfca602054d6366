/* What of a panel is no chart: figures, bars, states over time, tables. Each builder returns an element for the shape that
drawing.py made; text comes in through textContent only. */
(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const SEVERITY = { ok: "met", warn: "undecided", bad: "breached" };
  const SIGN = {
    ok: "M4.8 8.3 7 10.5l4.3-4.7",
    warn: "M8 4.6v4.2m0 2.2v.4",
    bad: "m5.4 5.4 5.2 5.2m0-5.2-5.2 5.2",
  };

  function make(tag, about = {}, ...children) {
    const el = document.createElement(tag);
    for (const [name, value] of Object.entries(about)) if (value != null && value !== false) el.setAttribute(name, value);
    el.append(...children.filter((child) => child != null));
    return el;
  }

  function draw(tag, about, ...children) {
    const el = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(about)) el.setAttribute(name, value);
    el.append(...children);
    return el;
  }

  /* A severity in colour and shape; its word is for readers. */
  function sign(severity) {
    if (!severity) return null;
    const ring = draw("circle", { cx: 8, cy: 8, r: 7.25 });
    const about = { viewBox: "0 0 16 16", class: `icon ${SEVERITY[severity]}`, fill: "none", stroke: "currentColor",
      "stroke-width": 1.5, "stroke-linecap": "round", role: "img", "aria-label": severity };
    return draw("svg", about, ring, draw("path", { d: SIGN[severity] }));
  }

  const dot = (color) => (color ? make("i", { class: `dot k-${color}` }) : null);
  const named = (href, ...content) => (href ? make("a", { href }, ...content) : make("span", {}, ...content));

  function stats({ figures }) {
    const items = figures.map((f) => {
      const value = make("b", { class: f.severity ? SEVERITY[f.severity] : null }, f.figure, make("small", {}, ` ${f.unit}`));
      return make("div", {}, value, make("span", {}, dot(f.color), named(f.href, f.name), sign(f.severity)));
    });
    return make("div", { class: "stats" }, ...items);
  }

  function bars({ figures, most }) {
    const rows = figures.map((f) => {
      const share = most > 0 && f.value > 0 ? (100 * f.value) / most : 0;
      const full = draw("rect", { width: 100, height: 6, rx: 1, class: "track" });
      const bar = draw("rect", { width: Math.max(share, f.value ? 0.6 : 0), height: 6, rx: 1, fill: "currentColor" });
      const about = { viewBox: "0 0 100 6", preserveAspectRatio: "none", class: `length k-${f.color || "t0"}`, "aria-hidden": "true" };
      return make("tr", {}, make("th", { scope: "row" }, named(f.href, f.name)), make("td", { class: "length" }, draw("svg", about, full, bar)),
        make("td", { class: f.severity ? SEVERITY[f.severity] : null }, f.figure, make("small", {}, ` ${f.unit}`)));
    });
    return make("table", { class: "bars full" }, make("tbody", {}, ...rows));
  }

  const clock = (seconds, days) => {
    const at = new Date(seconds * 1000).toISOString();
    return days ? `${at.slice(5, 10)} ${at.slice(11, 16)}` : at.slice(11, 19);
  };

  /* A lane for each row; a state is told by colour, by height and, under the pointer, in words. */
  function states({ start, end, words, severities, lanes }) {
    const span = end - start;
    const days = span > 86400;
    const rows = lanes.map((lane) => {
      const about = { viewBox: "0 0 1000 20", preserveAspectRatio: "none", class: "lane", role: "img",
        "aria-label": `${lane.name}: ${lane.segments.map((s) => `${words[s.state]} from ${clock(s.start, days)}`).slice(-8).join(", ")}` };
      const parts = lane.segments.map((s) => {
        const left = (1000 * (Math.max(s.start, start) - start)) / span;
        const width = Math.max(1.5, (1000 * (Math.min(s.end, end) - Math.max(s.start, start))) / span);
        const severity = severities[s.state] ?? "ok";
        const low = { ok: 7, warn: 4, bad: 0 }[severity];
        const rect = draw("rect", { x: left, y: low, width, height: 20 - low, class: `state ${severity}` });
        rect.append(draw("title", {}, `${lane.name}: ${words[s.state]}, ${clock(s.start, days)} to ${clock(s.end, days)} UTC`));
        return rect;
      });
      return make("tr", {}, make("th", { scope: "row" }, dot(lane.color), lane.name),
        make("td", { class: "lane" }, draw("svg", about, draw("line", { x1: 0, x2: 1000, y1: 19.5, y2: 19.5 }), ...parts)));
    });
    const from = make("span", {}, `${clock(start, days)}`);
    const to = make("span", {}, `${clock(end, days)} UTC`);
    const axis = make("tr", {}, make("td"), make("td", { class: "axis" }, make("div", {}, from, to)));
    const legend = words.map((word, i) => make("li", {}, make("i", { class: `block ${severities[i]}` }), word));
    return make("div", {}, make("table", { class: "states full" }, make("tbody", {}, ...rows, axis)), make("ul", { class: "legend" }, ...legend));
  }

  function table({ columns, rows }) {
    const head = columns.map((c) => make("th", { scope: "col", class: c.is_text ? "left" : null }, c.name, c.unit ? make("small", {}, ` ${c.unit}`) : null));
    const body = rows.map((cells) => make("tr", {}, ...cells.map((cell, i) => {
      const side = columns[i].is_text ? "left" : "";
      const long = cell.text.length > 40 ? "wrap" : "";
      const state = cell.severity ? SEVERITY[cell.severity] : "";
      return make("td", { class: [side, long, state].filter(Boolean).join(" ") || null }, dot(cell.color), named(cell.href, cell.text), sign(cell.severity));
    })));
    return make("div", { class: "scroll", tabindex: "0" }, make("table", { class: "full" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)));
  }

  globalThis.loadtestShapes = { make, stat: stats, bar: bars, states, table };
})();
