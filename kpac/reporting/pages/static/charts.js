"use strict";

// Curves over iterations, one colour per run.
kpac.charts = (() => {
  // Blue, orange, green, pink, brown: distinct with most kinds of colour blindness; dashes differ, too.
  const COLORS = { light: ["#0b57b0", "#a64b00", "#1b6e3c", "#a3216b", "#6b4a1f"], dark: ["#8ab8ff", "#ffb066", "#7fd69a", "#ff9bd0", "#d9b98a"] };
  const DASHES = [[], [6, 4], [2, 3], [8, 3, 2, 3], [1, 2]];
  const HEIGHT = 240;

  const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Draws a chart into an element; curves: [{ label, x, y }]; null values are gaps.
  function chart(place, title, curves, logarithmic) {
    const colors = COLORS[isDark() ? "dark" : "light"];
    const axis = { stroke: variable("--soft"), grid: { stroke: variable("--line"), width: 1 }, ticks: { stroke: variable("--line") } };
    const series = curves.map(({ label, y }, number) => ({
      label,
      stroke: colors[number % colors.length],
      dash: DASHES[Math.floor(number / colors.length) % DASHES.length],
      width: 2,
      spanGaps: true,
      points: { show: y.length < 40, fill: variable("--back") },
      value: (_, value) => (value === null || value === undefined ? "-" : String(Number(value.toPrecision(5)))),
    }));
    const aligned = uPlot.join(curves.map(({ x, y }) => [x, y]));
    const options = {
      width: place.clientWidth || 400,
      height: HEIGHT,
      series: [{ label: "iteration" }, ...series],
      scales: { x: { time: false }, y: { distr: logarithmic ? 3 : 1 } },
      axes: [{ ...axis }, { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : String(Number(tick.toPrecision(4))))) }],
    };
    const made = new uPlot(options, aligned, place);
    made.root.setAttribute("role", "img");
    made.root.setAttribute("aria-label", describe(title, curves));
    return made;
  }

  // Text of a chart for screen readers.
  function describe(title, curves) {
    const parts = curves.map(({ label, y }) => {
      const values = y.filter((value) => value !== null);
      if (!values.length) return `${label}: no values`;
      const short = (value) => String(Number(value.toPrecision(4)));
      return `${label}: from ${short(values[0])} to ${short(values.at(-1))}`;
    });
    return `${title}; ${parts.join("; ")}`;
  }

  return { chart, HEIGHT };
})();
