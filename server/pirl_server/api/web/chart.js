// One curve, or a few on one axis, by uPlot: sized to its box, coloured as the page is.
import { html, useEffect, useRef } from "./vendor/htm-preact.js";

const HEIGHT = 190, COLOURS = ["#3a73ff", "#d9730d", "#17915a", "#b4407e", "#7a5cd6", "#0f8fa8", "#a3661a", "#5b6b83"];
let library = null;

function load() {
  library = library || new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/dashboard/vendor/uplot.js";
    script.onload = resolve;
    script.onerror = reject;
    document.head.append(script);
  });
  return library;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** At most four significant digits, without a long tail of zeros. */
export const number = (value) => (value === null || value === undefined ? "none"
  : Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(4))));

function options(width, labels, unit, height) {
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width, height, legend: { show: false }, padding: [8, 8, 0, 0], cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    scales: { x: { time: false } },
    axes: [{ ...axis, label: unit, labelSize: unit ? 16 : 0, labelFont: "11px system-ui, sans-serif", size: 28 },
      { ...axis, size: 52, values: (_, ticks) => ticks.map(number) }],
    series: [{}, ...labels.map((label, index) => ({
      label, stroke: COLOURS[index % COLOURS.length], width: 1.6, spanGaps: true, points: { show: false },
    }))],
  };
}

/** `xs` and each of `lines` ({label, values}) have one length; null is a gap. `at` draws a cursor there. */
export function Chart({ name, xs, lines, unit = "step", height = HEIGHT, at = null }) {
  const box = useRef(null), plot = useRef(null), data = useRef(null);
  data.current = [xs, ...lines.map((line) => line.values)];
  const labels = lines.map((line) => line.label);
  useEffect(() => {
    let over = false;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const draw = () => {
      if (over || !window.uPlot || !box.current) return;
      if (plot.current) plot.current.destroy();
      plot.current = new window.uPlot(options(box.current.clientWidth || 300, labels, unit, height), data.current, box.current);
    };
    load().then(draw, () => {});
    const watcher = new ResizeObserver(() => {
      if (plot.current && box.current) plot.current.setSize({ width: box.current.clientWidth, height });
    });
    watcher.observe(box.current);
    dark.addEventListener("change", draw);
    return () => {
      over = true;
      watcher.disconnect();
      dark.removeEventListener("change", draw);
      if (plot.current) plot.current.destroy();
      plot.current = null;
    };
  }, [labels.join("\n"), unit, height]);
  useEffect(() => { if (plot.current) plot.current.setData(data.current); }, [xs, xs.length]);
  useEffect(() => {
    if (plot.current && at !== null) plot.current.setCursor({ left: plot.current.valToPos(at, "x"), top: -10 });
  });
  const last = (values) => number(values.findLast((value) => value !== null));
  const said = lines.map((line) => `${line.label} ${last(line.values)}`).join(", ");
  return html`<div class="chart" role="img" aria-label=${`${name}: ${xs.length} points, last ${said}`}>
    <div class="caption">${lines.length === 1 ? html`<b>${name}</b> <span class="last">${last(lines[0].values)}</span>`
      : html`<b>${name}</b> ${lines.map((line, index) => html`<span class=${`key key-${index % COLOURS.length}`}>${line.label}</span>`)}`}</div>
    <div ref=${box} class="plot"></div></div>`;
}
