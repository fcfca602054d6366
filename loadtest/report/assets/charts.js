/* chart(spec, el): draws one chart with uPlot, in the colours of the page, and again when theme or width change;
update(spec) of what it returns draws another one in its place.

spec: {
  kind: "line" | "stack" | "heat",
  x: {label, unit: "s" | "utc" | "nines" | ..., log: bool, zero: bool, min, max: number, ticks: [[value, label], ...],
      values: []},
  y: {label, unit, log: bool, max: number},
  series: [{label, name, color: "t0", shade: 1..3, dash: [on, off], width, points: bool | "alone", joined: bool,
            values: [number | null, ...]}],
  heat: {color: "t0", step, edges: [low, ..., high], cells: [[index in x.values, index in edges, count], ...]},
  marks: [{x, label}], limits: [{y, label}], height, group
}
Seconds are a unit of x from a start, "utc" is seconds since 1970. A cell of "heat" reaches from its value of x over
`step`, and from its edge to the next one. A click sends the event "pick" with the series and the value of x nearest to it.
What is absent is false, empty or usual. `color` is a custom property of the page; `shade` 3 is the colour itself, lower
ones are paler. Charts of one `group` share their cursor. Text comes in through textContent only. A reader without
scripts has the table beside the chart. */
(() => {
  "use strict";
  const FONT = '11px Inter, ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
  const SHADE_PERCENT = { 1: 38, 2: 66, 3: 100 };
  const LABEL_GAP_PX = 13;
  const NEAR_PX = 70;
  const DAY_S = 86400;
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200];
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

  const two = (n) => String(n).padStart(2, "0");
  const dayOf = (at) => `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;

  /* A time of day, as long as the steps of its axis ask for; midnight is named by its day. */
  function utc(seconds, step = 1) {
    const at = new Date(seconds * 1000);
    if (step >= DAY_S || (step > 60 && seconds % DAY_S === 0)) return dayOf(at);
    const minutes = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
    return step < 60 ? `${minutes}:${two(at.getUTCSeconds())}` : minutes;
  }

  function xText(spec, value) {
    const { unit, label } = spec.x;
    if (unit === "s") return clock(value);
    if (unit === "utc") return `${dayOf(new Date(value * 1000))} ${utc(value)} UTC`;
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

  /* Values between two that are not known: a line has no width there. */
  const alone = (values) => values.flatMap((v, i) => (v != null && values[i - 1] == null && values[i + 1] == null ? [i] : []));
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
      [...labels].sort((a, b) => b.x - a.x).forEach((l, i, all) => { /* names that would touch stand in one column */
        if (i && all[i - 1].x - l.x < NEAR_PX * ratio) l.x = all[i - 1].x;
      });
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
        const edge = ctx.canvas.width - ctx.measureText(l.text).width - 2 * ratio;
        ctx.fillText(l.text, Math.min(l.x + (above ? 2 : 8) * ratio, edge), l.y - (above ? 9 : 0) * ratio);
      }
      ctx.restore();
    };
  }

  function verticalMarks(spec, el) {
    const color = colorOf(el, "ink-3");
    return (u) => {
      let free = -Infinity; /* labels that would lie over another one are left out */
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
        const width = ctx.measureText(mark.label).width;
        const left = ctx.textAlign === "center" ? x - width / 2 : x + 5 * ratio - width;
        if (left > free) {
          ctx.fillText(mark.label, x + (ctx.textAlign === "center" ? 0 : 5 * ratio), u.bbox.top - 4 * ratio);
          free = left + width + 6 * ratio;
        }
        ctx.restore();
      }
    };
  }

  /* A limit is a line across, with its words at the left, where line ends do not stand. */
  function limits(spec, el) {
    const color = colorOf(el, "breached");
    return (u) => {
      const { ctx } = u;
      const ratio = devicePixelRatio;
      let last = Infinity; /* words that would lie over others are left out */
      for (const limit of spec.limits ?? []) {
        const y = u.valToPos(limit.y, "y", true);
        if (!(y >= u.bbox.top && y <= u.bbox.top + u.bbox.height)) continue;
        ctx.save();
        ctx.strokeStyle = ctx.fillStyle = color;
        ctx.lineWidth = ratio;
        ctx.setLineDash([2 * ratio, 3 * ratio]);
        ctx.beginPath();
        ctx.moveTo(u.bbox.left, y);
        ctx.lineTo(u.bbox.left + u.bbox.width, y);
        ctx.stroke();
        ctx.font = FONT.replace("11px", `${11 * ratio}px`);
        ctx.textAlign = "left";
        ctx.textBaseline = y - u.bbox.top > 16 * ratio ? "bottom" : "top";
        const middle = y + (ctx.textBaseline === "bottom" ? -9 : 9) * ratio;
        if (Math.abs(last - middle) > LABEL_GAP_PX * ratio) ctx.fillText(limit.label, u.bbox.left + 4 * ratio, y + (ctx.textBaseline === "bottom" ? -3 : 3) * ratio);
        last = middle;
        ctx.restore();
      }
    };
  }

  /* The darker, the more: by the root, so that a single slow request is still seen beside thousands. */
  function heat(spec, el) {
    const { color, step, edges, cells } = spec.heat;
    const most = Math.max(1, ...cells.map(([, , n]) => n));
    const shades = [];
    const probe = document.createElement("span");
    el.append(probe);
    for (let i = 0; i <= 20; i++) {
      probe.style.color = `color-mix(in srgb, var(--${color}) ${14 + 4.3 * i}%, var(--bg))`;
      shades.push(getComputedStyle(probe).color);
    }
    probe.remove();
    return (u) => {
      const { ctx } = u;
      ctx.save();
      ctx.beginPath();
      ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
      ctx.clip();
      for (const [xi, yi, n] of cells) {
        const left = u.valToPos(spec.x.values[xi], "x", true);
        const right = u.valToPos(spec.x.values[xi] + step, "x", true);
        const bottom = u.valToPos(edges[yi], "y", true);
        const top = u.valToPos(edges[yi + 1], "y", true);
        ctx.fillStyle = shades[Math.round(20 * Math.sqrt(n / most))];
        ctx.fillRect(left, top, Math.max(1, right - left - 0.5), Math.max(1, bottom - top - 0.5));
      }
      ctx.restore();
    };
  }

  /* What a cell under the cursor stands for. */
  function cellAt(spec, u) {
    const { step, edges, cells } = spec.heat;
    const x = u.posToVal(u.cursor.left, "x");
    const y = u.posToVal(u.cursor.top, "y");
    const xi = spec.x.values.findIndex((from) => x >= from && x < from + step);
    const yi = edges.findIndex((low, i) => y >= low && y < edges[i + 1]);
    const cell = cells.find(([cx, cy]) => cx === xi && cy === yi);
    return xi < 0 || yi < 0 ? null : { xi, yi, n: cell ? cell[2] : 0 };
  }

  function heatTip(spec) {
    const box = document.createElement("div");
    box.className = "tip";
    box.hidden = true;
    const title = box.appendChild(document.createElement("b"));
    const words = box.appendChild(document.createElement("div"));
    return {
      init: (u) => u.over.append(box),
      setCursor: (u) => {
        const cell = u.cursor.left >= 0 && u.cursor.top >= 0 ? cellAt(spec, u) : null;
        box.hidden = !cell;
        if (!cell) return;
        title.textContent = xText(spec, spec.x.values[cell.xi]);
        const [low, high] = [spec.heat.edges[cell.yi], spec.heat.edges[cell.yi + 1]];
        words.textContent = `${number.format(low)} to ${yText(spec, high)}: ${number.format(cell.n)}`;
        beside(box, u);
      },
    };
  }

  function beside(box, u) {
    const { left } = u.cursor;
    const flip = left > u.over.clientWidth / 2;
    box.style.left = flip ? "" : `${left + 12}px`;
    box.style.right = flip ? `${u.over.clientWidth - left + 12}px` : "";
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
        beside(box, u);
      },
    };
  }

  /* Round values of a logarithmic axis: of each decade 1, 2 and 5, where there are few decades. */
  function decades(low, high) {
    const digits = high / low > 200 ? [1] : [1, 2, 5];
    const first = Math.floor(Math.log10(low));
    const powers = Array.from({ length: Math.ceil(Math.log10(high)) - first + 1 }, (_, i) => 10 ** (first + i));
    return powers.flatMap((power) => digits.map((digit) => digit * power)).filter((v) => v >= low && v <= high);
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
    if (spec.x.unit === "s") x.incrs = STEPS_S.slice(0, 14);
    if (spec.x.unit === "utc") {
      x.incrs = [...STEPS_S, ...[1, 2, 4, 7, 14, 28, 56, 112].map((days) => days * DAY_S)];
      x.space = 72;
      x.values = (_, splits, __, ___, step) => splits.map((v) => (v == null ? "" : utc(v, step)));
    }
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
    if (spec.heat) Object.assign(y, { splits: (u) => decades(u.scales.y.min, u.scales.y.max), filter: (_, splits) => splits });
    if (!spec.y.log && !spec.y.unit) y.incrs = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5];
    return [x, y];
  }

  function xRange(spec) {
    return spec.x.log ? undefined : (_, low, high) => [spec.x.min ?? (spec.x.zero ? 0 : low), spec.x.max ?? high];
  }

  function yRange(spec) {
    if (spec.heat) {
      const rows = spec.heat.cells.map(([, yi]) => yi);
      return () => [spec.heat.edges[Math.min(...rows)], spec.heat.edges[Math.max(...rows) + 1]];
    }
    if (spec.y.log) return (_, low, high) => uPlot.rangeLog(low ?? 1, high ?? 10, 10, true);
    return (_, low, high) => [0, spec.y.max ?? (high > 0 ? high * 1.08 : 1)];
  }

  function options(spec, el, size, drawn, colors) {
    const paths = spec.kind === "stack" ? uPlot.paths.bars({ size: [0.9, 40], align: 1, gap: 0 }) : undefined;
    const context = document.createElement("canvas").getContext("2d");
    context.font = `500 ${FONT}`;
    const inks = drawn.map((s) => inkOf(el, s));
    const labelled = spec.kind === "line" && drawn.length > 0;
    /* a line that ends early has its name where it ends, and the rest of the plot as room for it */
    const widths = drawn.map((s) => {
      const rest = endsEarly(s) ? (1 - lastKnown(s.values) / (s.values.length - 1)) * (size.width - 90) : 0;
      return Math.max(0, context.measureText(s.label).width - rest);
    });
    const right = Math.max(spec.x.unit === "utc" ? 26 : 8, labelled ? 14 + Math.max(...widths) : 0); /* half a time's width */
    const tip = spec.heat ? heatTip(spec) : tooltip(spec, drawn, colors);
    const hooks = { init: [tip.init], setCursor: [tip.setCursor], draw: [limits(spec, el), verticalMarks(spec, el)] };
    if (spec.heat) hooks.drawAxes = [heat(spec, el)];
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
        ...(spec.heat ? [{ show: false }] : []),
        ...drawn.map((s, i) => ({
          label: s.label,
          stroke: colors[i],
          fill: spec.kind === "stack" ? colors[i] : undefined,
          width: spec.kind === "stack" ? 0 : (s.width ?? 1.75),
          dash: s.dash ?? undefined,
          paths,
          points: { show: Boolean(s.points), size: s.points === "alone" ? 4 : 6, fill: colors[i], stroke: colors[i],
            filter: s.points === "alone" ? () => alone(s.values) : undefined },
          spanGaps: Boolean(s.joined),
        })),
      ],
      hooks,
    };
  }

  /* The value nearest to the pointer: which series it is of, and where. */
  function picked(u, drawn, upsideDown) {
    const { idx, top } = u.cursor;
    if (idx == null) return null;
    const distances = drawn.map((s) => {
      const value = (s.tops ?? s.values)[idx];
      return value == null ? Infinity : Math.abs(u.valToPos(value, "y") - top);
    });
    const series = distances.indexOf(Math.min(...distances));
    if (!(distances[series] < Infinity)) return null;
    return { at: u.data[0][idx], series: upsideDown ? drawn.length - 1 - series : series };
  }

  function chart(spec, el) {
    let plot = null;
    function redraw(width = el.clientWidth) {
      const drawn = spec.kind === "stack" ? stacked(spec.series) : spec.series;
      const columns = spec.heat ? [spec.x.values.map(() => null)] : drawn.map((s) => s.tops ?? s.values);
      const { left, top } = plot?.cursor ?? { left: -1 };
      plot?.destroy();
      const colors = drawn.map((s) => colorOf(el, s.color, s.shade ?? 3));
      const size = { width, height: spec.height ?? 190 };
      plot = new uPlot(options(spec, el, size, drawn, colors), [spec.x.values, ...columns], el);
      if (left >= 0) plot.setCursor({ left, top });
      plot.over.addEventListener("click", () => {
        const detail = picked(plot, drawn, spec.kind === "stack");
        if (detail) el.dispatchEvent(new CustomEvent("pick", { bubbles: true, detail }));
      });
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
      update: (next) => {
        spec = next;
        redraw();
      },
      destroy: () => {
        resizes.disconnect();
        plot.destroy();
      },
    };
  }

  globalThis.loadtestCharts = { chart };
})();
