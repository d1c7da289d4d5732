// The chart: a canvas by uPlot, drawn at most once per frame, and the time range that it shows.
import uPlot from "uplot";
import { axis, colour } from "./chart-axis.js";

// Tick labels by step in seconds: [from, always, at a new year, day, hour].
const [DAY, CLOCK] = ["{YYYY}-{MM}-{DD}", "{HH}:{mm}"];
const TIMES = [
  [86_400, DAY, null, null, null, null, null, null, 1],
  [60, CLOCK, `\n${DAY}`, null, `\n${DAY}`, null, null, null, 1],
  [1, `${CLOCK}:{ss}`, `\n${DAY}`, null, `\n${DAY}`, null, null, null, 1],
  [0.001, `${CLOCK}:{ss}.{fff}`, `\n${DAY}`, null, `\n${DAY}`, null, null, null, 1],
];
const MIN_RANGE_S = 2;
const MAX_RANGE_S = 3660 * 86_400;

export class Chart {
  /** `onView()` is called after panning and zooming. */
  constructor(box, onView) {
    this.box = box;
    this.onView = onView;
    this.windowS = 300;
    this.isLive = true;
    this.from = this.to = 0;
    this.draws = 0;
    this.xs = [];
    this.ys = [];
    this.plot = new uPlot(
      {
        ...this.#size(),
        legend: { show: false },
        cursor: { drag: { x: true, y: false, setScale: false } },
        scales: { x: { time: true, auto: false } },
        axes: [axis({ values: TIMES }), axis({ size: 70 })],
        series: [
          {},
          { stroke: () => colour("--accent"), width: 1.5, spanGaps: true },
        ],
        hooks: {
          setSelect: [(plot) => this.#selected(plot)],
          draw: [() => this.draws++],
        },
      },
      [[], []],
      box,
    );
    this.plot.over.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    new ResizeObserver(() => this.plot.setSize(this.#size())).observe(box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
      this.plot.redraw(false, true),
    );
  }

  get width() {
    return this.box.clientWidth;
  }

  /** Move the range to now, if live. Whether that moves the chart by a pixel or more. */
  slide(nowS) {
    if (!this.isLive) return false;
    const moved = Math.abs(nowS - this.to) >= this.windowS / Math.max(100, this.width);
    if (moved) [this.from, this.to] = [nowS - this.windowS, nowS];
    return moved;
  }

  show({ xs, ys }) {
    [this.xs, this.ys] = [xs, ys];
    this.plot.batch(() => {
      this.plot.setData([xs, ys], false);
      this.plot.setScale("x", { min: this.from, max: this.to });
    });
  }

  /** Show the range of another chart. */
  copy({ from, to, isLive, windowS }) {
    Object.assign(this, { from, to, isLive, windowS });
  }

  /** Show a fixed range. */
  showRange(from, to) {
    const length = Math.min(MAX_RANGE_S, Math.max(MIN_RANGE_S, to - from));
    const middle = (from + to) / 2;
    this.isLive = false;
    [this.from, this.to] = [middle - length / 2, middle + length / 2];
    this.onView();
  }

  goLive(windowS = this.windowS) {
    this.windowS = windowS;
    this.isLive = true;
    this.to = 0; // so that the next frame moves it
    this.onView();
  }

  pan(part) {
    const by = (this.to - this.from) * part;
    this.showRange(this.from + by, this.to + by);
  }

  zoom(factor, at = (this.from + this.to) / 2) {
    if (this.isLive && at >= this.to) return this.goLive(this.windowS * factor);
    this.showRange(at - (at - this.from) * factor, at + (this.to - at) * factor);
  }

  #wheel(event) {
    event.preventDefault();
    const box = this.plot.over.getBoundingClientRect();
    const part = (event.clientX - box.left) / box.width;
    this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.from + (this.to - this.from) * part);
  }

  #selected(plot) {
    const { left, width } = plot.select;
    if (width < 4) return;
    const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.showRange(from, to);
  }

  #size() {
    return { width: Math.max(200, this.box.clientWidth), height: Math.max(220, this.box.clientHeight) };
  }
}
