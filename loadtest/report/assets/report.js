/* The report's own few lines: draw each figure from the JSON beside it, follow the theme, print in light. */
(() => {
  "use strict";
  const root = document.documentElement;
  const PRINT_WIDTH_PX = { wide: 690, half: 335 };
  const THEMES = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  const drawn = [];

  function stored() {
    try {
      return localStorage.getItem("loadtest-theme");
    } catch {
      return null;
    }
  }

  function store(theme) {
    try {
      localStorage.setItem("loadtest-theme", theme);
    } catch {
      /* a file opened from disk may not store: the choice then lasts as long as the page */
    }
  }

  function setTheme(theme) {
    root.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    drawn.forEach((d) => d.chart.redraw());
  }

  function draw(figure) {
    const el = figure.querySelector(".plot");
    const spec = JSON.parse(figure.querySelector("script").textContent);
    drawn.push({ chart: loadtestCharts.chart(spec, el), wide: figure.classList.contains("wide") });
  }

  root.classList.add("scripted");
  setTheme(THEMES.includes(stored()) ? stored() : "auto");
  document.querySelectorAll("figure.chart").forEach(draw);
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
    store(next);
    setTheme(next);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((d) => d.chart.redraw()));

  let before = null;
  let opened = [];
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    opened = [...document.querySelectorAll("#method details:not([open])")];
    opened.forEach((d) => (d.open = true));
    root.dataset.theme = "light";
    drawn.forEach((d) => d.chart.redraw(d.wide ? PRINT_WIDTH_PX.wide : PRINT_WIDTH_PX.half));
  });
  addEventListener("afterprint", () => {
    opened.forEach((d) => (d.open = false));
    setTheme(before ?? "auto");
  });
})();
