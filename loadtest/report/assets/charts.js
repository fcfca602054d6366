/* chart(spec, el): draws one chart with uPlot, in the colours of the page, and again when theme or width change.

spec: {
  kind: "line" | "stack",
  x: {label, unit: "s" | "nines" | ..., log: bool, zero: bool, max: number, ticks: [[value, label], ...], values: []},
  y: {label, unit, log: bool, max: number},
  series: [{label, name, color: "t0", shade: 1..3, dash: [on, off], width, points: bool, joined: bool,
            values: [number | null, ...]}],
  marks: [{x, label}], height, group
}
What is absent is false, empty or usual. `color` is a custom property of the page; `shade` 3 is the colour itself, lower
ones are paler. Charts of one `group` share their cursor. Text comes in through textContent only. A reader without
scripts has the table beside the chart. */
(() => {
  "use strict";
  const FONT = '11px Inter, ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
  const SHADE_PERCENT = { 1: 38, 2: 66, 3: 100 };
  const LABEL_GAP_PX = 13;
  const number = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });

  /* A canvas knows no custom properties: an element of the page resolves them. */
  function colorOf(el, token, shade = 3, towards = "bg") {
    const probe = document.createElement("span");
    probe.style.color = `color-mix(in srgb, var(--${token}) ${SHADE_PERCENT[shade]}%, var(--${towards}))`;
    el.append(probe);
    const color = getComputedStyle(probe).color;
    probe.remove();
    return color;
  }

  /* A pale line's label goes towards the text's colour instead, to be read. */
  const inkOf = (el, { color, shade = 3 }) => (shade === 3 ? colorOf(el, color) : colorOf(el, color, 2, "ink"));

  function clock(seconds) {
    const whole = Math.floor(seconds);
    return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
  }

  function xText(spec, value) {
    const { unit, label } = spec.x;
    if (unit === "s") return clock(value);
    if (unit === "nines") return value ? `p${Number((100 * (1 - 10 ** -value)).toFixed(3))}` : "min";
    return `${number.format(value)} ${unit || label}`;
  }

  const yText = (spec, value) => `${number.format(value)}${spec.y.unit ? " " + spec.y.unit : ""}`;

  /* Stacked values, the top of the stack first, so that lower parts are painted over it. */
  function stacked(series) {
    const sums = series[0].values.map(() => 0);
    return series
      .map((s) => ({ ...s, tops: s.values.map((value, i) => (sums[i] += value ?? 0)) }))
      .reverse();
  }

  const lastKnown = (values) => values.findLastIndex((v) => v != null);
  const endsEarly = ({ values, joined }) => !joined && lastKnown(values) < 0.95 * (values.length - 1);

  /* A line's name stands where the line ends. */
  function endLabels(spec, drawn, colors) {
    return (u) => {
      const { ctx } = u;
      const ratio = devicePixelRatio;
      const labels = drawn
        .map((s, i) => {
          const last = lastKnown(s.values);
          if (last < 0 || !s.label) return null;
          const inside = endsEarly(s);
          const x = inside ? u.valToPos(u.data[0][last], "x", true) : u.bbox.left + u.bbox.width;
          return { text: s.label, color: colors[i], inside, x, y: u.valToPos(s.values[last], "y", true) };
        })
        .filter((l) => l && Number.isFinite(l.y))
        .reverse() /* of equal ones the last drawn stands on top, as it does in the plot */
        .sort((a, b) => a.y - b.y);
      const gap = LABEL_GAP_PX * ratio;
      const bottom = u.bbox.top + u.bbox.height;
      for (const x of new Set(labels.map((l) => l.x))) {
        const column = labels.filter((l) => l.x === x);
        column.forEach((l, i) => (l.y = Math.max(l.y, i ? column[i - 1].y + gap : u.bbox.top)));
        column.reduceRight((limit, l) => (l.y = Math.min(l.y, limit)) - gap, bottom);
      }
      ctx.save();
      ctx.font = FONT.replace("11px", `500 ${11 * ratio}px`);
      ctx.textBaseline = "middle";
      ctx.textAlign = "left";
      for (const l of labels) {
        ctx.fillStyle = l.color;
        const above = l.inside && spec.x.unit === "nines"; /* others go on below and to the right of it */
        ctx.fillText(l.text, l.x + (above ? 2 : 8) * ratio, l.y - (above ? 9 : 0) * ratio);
      }
      ctx.restore();
    };
  }

  function verticalMarks(spec, el) {
    const color = colorOf(el, "ink-3");
    return (u) => {
      for (const mark of spec.marks ?? []) {
        const x = u.valToPos(mark.x, "x", true);
        if (x < u.bbox.left - 1 || x > u.bbox.left + u.bbox.width + 1) continue;
        const { ctx } = u;
        const ratio = devicePixelRatio;
        ctx.save();
        ctx.strokeStyle = ctx.fillStyle = color;
        ctx.setLineDash([3 * ratio, 3 * ratio]);
        ctx.lineWidth = ratio;
        ctx.beginPath();
        ctx.moveTo(x, u.bbox.top);
        ctx.lineTo(x, u.bbox.top + u.bbox.height);
        ctx.stroke();
        ctx.font = FONT.replace("11px", `${11 * ratio}px`);
        ctx.textBaseline = "bottom";
        const room = u.bbox.left + u.bbox.width - x;
        ctx.textAlign = room > 70 * ratio ? "center" : "right";
        ctx.fillText(mark.label, x + (ctx.textAlign === "center" ? 0 : 5 * ratio), u.bbox.top - 4 * ratio);
        ctx.restore();
      }
    };
  }

  /* A box that follows the cursor and names each series' value there. */
  function tooltip(spec, drawn, colors) {
    const box = document.createElement("div");
    box.className = "tip";
    box.hidden = true;
    const title = box.appendChild(document.createElement("b"));
    const rows = drawn.map((s, i) => {
      const row = box.appendChild(document.createElement("div"));
      const swatch = row.appendChild(document.createElement("i"));
      swatch.style.background = colors[i];
      row.appendChild(document.createElement("span")).textContent = s.name ?? s.label;
      return [row, row.appendChild(document.createElement("em"))];
    });
    return {
      init: (u) => u.over.append(box),
      setCursor: (u) => {
        const { idx, left } = u.cursor;
        box.hidden = idx == null || left < 0;
        if (box.hidden) return;
        title.textContent = xText(spec, u.data[0][idx]);
        drawn.forEach((s, i) => {
          const value = s.values[idx];
          rows[i][0].hidden = value == null || (spec.kind === "stack" && value === 0);
          rows[i][1].textContent = value == null ? "" : yText(spec, value);
        });
        const flip = left > u.over.clientWidth / 2;
        box.style.left = flip ? "" : `${left + 12}px`;
        box.style.right = flip ? `${u.over.clientWidth - left + 12}px` : "";
      },
    };
  }

  function axes(spec, el) {
    const common = { stroke: colorOf(el, "ink-3"), font: FONT, ticks: { show: false } };
    const x = {
      ...common,
      grid: { show: false },
      border: { show: true, stroke: colorOf(el, "line-2"), width: 1 },
      size: 26,
      gap: 6,
      space: 56,
      values: (_, splits) => splits.map((v) => (v == null ? "" : spec.x.unit === "s" ? clock(v) : number.format(v))),
    };
    if (spec.x.unit === "s") x.incrs = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
    if (spec.x.ticks) {
      x.splits = () => spec.x.ticks.map(([value]) => value);
      x.values = () => spec.x.ticks.map(([, label]) => label);
      x.filter = (_, splits) => splits;
    }
    const y = {
      ...common,
      grid: { stroke: colorOf(el, "line"), width: 1 },
      size: (_, values) => 14 + 6.4 * Math.max(2, ...(values ?? []).map((v) => (v ?? "").length)),
      gap: 6,
      space: 34,
      values: (_, splits) => splits.map((v) => (v == null ? "" : number.format(v))),
    };
    if (!spec.y.log && !spec.y.unit) y.incrs = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5];
    return [x, y];
  }

  function xRange(spec) {
    return spec.x.log ? undefined : (_, low, high) => [spec.x.zero ? 0 : low, spec.x.max ?? high];
  }

  function yRange(spec) {
    if (spec.y.log) return (_, low, high) => uPlot.rangeLog(low ?? 1, high ?? 10, 10, true);
    return (_, low, high) => [0, spec.y.max ?? (high > 0 ? high * 1.08 : 1)];
  }

  function options(spec, el, size, drawn, colors) {
    const paths = spec.kind === "stack" ? uPlot.paths.bars({ size: [0.9, 40], align: 1, gap: 0 }) : undefined;
    const context = document.createElement("canvas").getContext("2d");
    context.font = `500 ${FONT}`;
    const inks = drawn.map((s) => inkOf(el, s));
    const labelled = spec.kind === "line" && drawn.length > 0;
    const widths = drawn.map((s) => (endsEarly(s) ? 0 : context.measureText(s.label).width));
    const right = labelled ? 14 + Math.max(...widths) : 8;
    const tip = tooltip(spec, drawn, colors);
    const hooks = { init: [tip.init], setCursor: [tip.setCursor], draw: [verticalMarks(spec, el)] };
    if (labelled) hooks.draw.push(endLabels(spec, drawn, inks));
    return {
      ...size,
      padding: [spec.marks?.length || drawn.some(endsEarly) ? 20 : 8, right, 0, 0],
      legend: { show: false },
      cursor: {
        y: false,
        points: { show: spec.kind === "line", size: 6 },
        drag: { x: false, y: false },
        sync: spec.group ? { key: spec.group, setSeries: false } : undefined,
      },
      scales: {
        x: { time: false, distr: spec.x.log ? 3 : 1, range: xRange(spec) },
        y: { distr: spec.y.log ? 3 : 1, range: yRange(spec) },
      },
      axes: axes(spec, el),
      series: [
        {},
        ...drawn.map((s, i) => ({
          label: s.label,
          stroke: colors[i],
          fill: spec.kind === "stack" ? colors[i] : undefined,
          width: spec.kind === "stack" ? 0 : (s.width ?? 1.75),
          dash: s.dash ?? undefined,
          paths,
          points: { show: Boolean(s.points), size: 6, fill: colors[i], stroke: colors[i] },
          spanGaps: Boolean(s.joined),
        })),
      ],
      hooks,
    };
  }

  function chart(spec, el) {
    const drawn = spec.kind === "stack" ? stacked(spec.series) : spec.series;
    const data = [spec.x.values, ...drawn.map((s) => s.tops ?? s.values)];
    let plot = null;
    function redraw(width = el.clientWidth) {
      plot?.destroy();
      const colors = drawn.map((s) => colorOf(el, s.color, s.shade ?? 3));
      plot = new uPlot(options(spec, el, { width, height: spec.height ?? 190 }, drawn, colors), data, el);
    }
    redraw();
    let width = el.clientWidth;
    const resizes = new ResizeObserver(() => {
      if (el.clientWidth === width || !el.clientWidth) return;
      width = el.clientWidth;
      plot.setSize({ width, height: spec.height ?? 190 });
    });
    resizes.observe(el);
    return {
      redraw,
      destroy: () => {
        resizes.disconnect();
        plot.destroy();
      },
    };
  }

  globalThis.loadtestCharts = { chart };
})();
