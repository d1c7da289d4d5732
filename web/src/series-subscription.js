// The history and the live points of one selected series. Another selection is another instance:
// late responses of an ended one are discarded.
import { fetchAsStaff } from "./api.js";
import { readEventStream } from "./event-stream.js";
import { SeriesPoints } from "./series-data.js";

const MAX_RECENT = 5000; // live points, kept for the next history
const HISTORY_TIMEOUT_MS = 15_000;
const RETRY_MS = 1000;

export class SeriesSubscription {
  constructor(name, { onChange, onResponse, onError }) {
    this.name = name;
    this.unit = "";
    this.data = new SeriesPoints();
    this.recent = new SeriesPoints([], MAX_RECENT);
    this.loaded = null; // the history's { from, to, stands_for }
    this.pending = []; // received since the last frame
    this.events = 0;
    this.isOver = false;
    this.isLive = null; // null: not yet known
    this.controller = new AbortController();
    Object.assign(this, { onChange, onResponse, onError });
    if (!this.isDriverSeries) this.#follow();
  }

  /** A driver's own battery or speed has no stream: its history is polled. */
  get isDriverSeries() {
    return this.name.split("/").length === 3;
  }

  get path() {
    return `/series/${this.name.split("/").map(encodeURIComponent).join("/")}`;
  }

  end() {
    this.isOver = true;
    this.controller.abort();
  }

  /** Load the history of a range, in epoch seconds; a newer call supersedes an older one. */
  async load(from, to, points) {
    this.loading?.abort();
    const loading = (this.loading = new AbortController());
    const query = new URLSearchParams({
      from: new Date(from * 1000).toISOString(),
      to: new Date(to * 1000).toISOString(),
      points: String(Math.max(2, Math.min(5000, Math.round(points)))),
    });
    const timeout = AbortSignal.timeout(HISTORY_TIMEOUT_MS);
    try {
      const signal = AbortSignal.any([loading.signal, this.controller.signal, timeout]);
      const answer = await (await fetchAsStaff(`${this.path}?${query}`, { signal })).json();
      this.onResponse();
      if (this.isOver || loading.signal.aborted) return;
      if (this.isDriverSeries) this.isLive = true;
      this.unit = answer.unit;
      this.loaded = { from, to, stands_for: answer.stands_for };
      this.data = new SeriesPoints(answer.points);
      const { xs, ys } = this.recent;
      this.data.add(xs.map((x, n) => [x * 1000, ys[n]]));
      this.onChange();
    } catch (error) {
      if (this.isOver || loading.signal.aborted) return;
      if (this.isDriverSeries) this.isLive = false;
      this.onError(error);
    }
  }

  /** Merge the points received since the last frame; whether there were any. */
  mergePending() {
    if (!this.pending.length) return false;
    const points = this.pending;
    this.pending = [];
    this.data.add(points);
    this.recent.add(points);
    return true;
  }

  #onEvent(event) {
    if (this.isOver || event.event !== "points") return;
    this.lastId = event.id;
    const { name, points } = JSON.parse(event.data);
    if (name !== this.name) return;
    this.events++;
    for (const point of points) this.pending.push(point);
    if (this.pending.length > MAX_RECENT) this.mergePending(); // a hidden page draws no frames
    this.onChange();
  }

  async #follow() {
    while (!this.isOver) {
      const headers = this.lastId ? { "Last-Event-ID": this.lastId } : {};
      const request = async (signal) => {
        const response = await fetchAsStaff(`${this.path}/stream`, { headers, signal });
        this.isLive = true;
        this.onResponse();
        return response;
      };
      try {
        await readEventStream(request, {
          signal: this.controller.signal,
          onEvent: (event) => this.#onEvent(event),
        });
      } catch (error) {
        if (!this.isOver) this.onError(error);
      }
      if (this.isOver) return;
      this.isLive = false;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS * (1 + Math.random())));
    }
  }
}
