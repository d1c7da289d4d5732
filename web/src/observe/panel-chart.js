// One panel of a dashboard: a chart by uPlot with a legend of values.
import uPlot from "uplot";
import { getJson } from "../api.js";
import { axis } from "../chart-axis.js";
import { el } from "../elements.js";
import { clock } from "../times.js";
import { decimal, locale, say } from "./texts.js";

const HEIGHT = 190;
const COLOURS = ["#2f6fed", "#d9480f", "#2b8a3e", "#9c36b5", "#b88400", "#0b7285", "#c2255c", "#868e96"];
const BYTES = ["B", "kB", "MB", "GB", "TB"];

/** A value in its unit, short: 1.2 k, 340 ms, 5.1 MB/s. */
function format(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit.startsWith("bytes")) {
    const power = Math.min(BYTES.length - 1, Math.max(0, Math.floor(Math.log10(Math.abs(value) || 1) / 3)));
    return `${short(value / 1000 ** power)} ${BYTES[power]}${unit === "bytes" ? "" : "/s"}`;
  }
  if (unit === "seconds") return Math.abs(value) < 1 ? `${short(value * 1000)} ms` : `${short(value)} s`;
  if (unit === "share") return `${short(value * 100)} %`;
  const text = Math.abs(value) >= 10_000 ? `${short(value / 1000)} k` : short(value);
  return unit === "per second" ? `${text}/s` : text;
}

const short = (value) => decimal(Number(value.toPrecision(3)));

export class PanelChart {
  constructor(panel) {
    this.panel = panel;
    this.box = el("div", { class: "chart" });
    this.element = el(
      "article",
      { class: "panel" },
      el("h2", {}, say(panel.title)),
      panel.note ? el("p", { class: "muted small" }, say(panel.note)) : null,
      this.box,
    );
    this.labels = null;
    this.plot = null;
    this.loads = 0;
    this.observer = new ResizeObserver(() => this.plot?.setSize(this.#size()));
    this.observer.observe(this.box);
  }

  async load(minutes) {
    const load = (this.loads += 1);
    const { at, series } = await getJson(`/observe/panels/${this.panel.id}?minutes=${minutes}`);
    if (load !== this.loads) return; // overtaken, or the chart is gone
    const labels = series.map(({ label }) => label).join("\n");
    const data = [at, ...series.map(({ values }) => values)];
    if (!this.plot || labels !== this.labels) {
      this.plot?.destroy();
      this.labels = labels;
      this.plot = this.#make(series, data);
    } else {
      this.plot.setData(data);
    }
    this.#showNewest();
    const text = series.map(({ label, values }) => `${say(label)} ${format(values.at(-1), this.panel.unit)}`);
    this.box.setAttribute("role", "img");
    this.box.setAttribute("aria-label", `${say(this.panel.title)}: ${text.join(", ") || say("no data")}`);
  }

  destroy() {
    this.loads += 1;
    this.observer.disconnect();
    this.plot?.destroy();
  }

  #make(series, data) {
    const value = (_plot, one) => format(one, this.panel.unit);
    return new uPlot(
      {
        ...this.#size(),
        cursor: { drag: { x: false, y: false } },
        legend: { live: true },
        hooks: { ready: [(plot) => this.#showNewest(plot)], setCursor: [(plot) => this.#showNewest(plot)] },
        scales: { y: { range: (_plot, min, max) => [Math.min(0, min ?? 0), max > 0 ? max * 1.05 : 1] } },
        axes: [
          axis({ values: (_plot, ticks) => ticks.map((s) => clock(s * 1000)) }),
          axis({ size: 76, values: (_plot, ticks) => ticks.map((tick) => format(tick, this.panel.unit)) }),
        ],
        series: [
          { label: say("Time"), value: (_plot, one) => (one ? new Date(one * 1000).toLocaleTimeString(locale) : "–") },
          ...series.map(({ label }, index) => ({
            label: say(label),
            value,
            stroke: COLOURS[index % COLOURS.length],
            dash: index < COLOURS.length ? undefined : [6, 4],
            width: 1.5,
          })),
        ],
      },
      data,
      this.box,
    );
  }

  /** Without a pointer on the chart the legend shows the newest values. */
  #showNewest(plot = this.plot) {
    const { idx } = plot.cursor;
    if (idx === null || idx === undefined) plot.setLegend({ idx: plot.data[0].length - 1 });
  }

  #size() {
    return { width: Math.max(240, this.box.clientWidth), height: HEIGHT };
  }
}
