// The history and the live points of one selected series. Another selection is another instance:
// late responses of an ended one are discarded.
import { ApiProblem, fetchAsStaff } from "./api.js";
import { readEventStream } from "./event-stream.js";
import { SeriesPoints } from "./series-data.js";
import { takeSlot } from "./stream-slots.js";

const MAX_RECENT = 5000; // live points, kept for the next history
const HISTORY_TIMEOUT_MS = 15_000;
const RETRY_MS = 1000;
const SLOT_RETRY_MS = 4000; // while other tabs have all the streams

export class SeriesSubscription {
  /** `onStream()` is called when the stream begins after polls or a loss: what came between is in the history. */
  constructor(name, { onChange, onResponse, onError, onStream }) {
    this.name = name;
    this.unit = "";
    this.data = new SeriesPoints();
    this.recent = new SeriesPoints([], MAX_RECENT);
    this.loaded = null; // the history's { from, to, stands_for }
    this.pending = []; // received since the last frame
    this.events = 0;
    this.isOver = false;
    this.isLive = null; // null: not yet known
    this.isUnknown = false; // nothing was published with this name
    this.isPolled = this.isDriverSeries; // the page loads its history often
    this.controller = new AbortController();
    Object.assign(this, { onChange, onResponse, onError, onStream });
    if (!this.isDriverSeries) this.#follow();
  }

  /** A driver's own battery or speed has no stream. */
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
      this.isUnknown = false;
      if (this.isPolled) this.isLive = true;
      this.unit = answer.unit;
      this.loaded = { from, to, stands_for: answer.stands_for };
      this.data = new SeriesPoints(answer.points);
      const { xs, ys } = this.recent;
      this.data.add(xs.map((x, n) => [x * 1000, ys[n]]));
      this.onChange();
    } catch (error) {
      if (this.isOver || loading.signal.aborted) return;
      this.#fail(error, this.isPolled);
    }
  }

  /** Note a failed request. That there is no such series is an answer, not a lost connection. */
  #fail(error, isOfLive) {
    this.isUnknown = error instanceof ApiProblem && error.status === 404;
    if (this.isUnknown || isOfLive) this.isLive = this.isUnknown ? null : false;
    this.onChange();
    this.onError(error);
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

  /** Read the stream while this browser has a connection to spare. */
  async #follow() {
    while (!this.isOver) {
      const free = await takeSlot();
      if (free) await this.#read().finally(free);
      else this.isPolled = true;
      const delayMs = free ? RETRY_MS * (1 + Math.random()) : SLOT_RETRY_MS;
      if (!this.isOver) await new Promise((resolve) => setTimeout(resolve, delayMs));
    }
  }

  async #read() {
    const headers = this.lastId ? { "Last-Event-ID": this.lastId } : {};
    const request = async (signal) => {
      const response = await fetchAsStaff(`${this.path}/stream`, { headers, signal });
      const wasAway = this.isPolled || this.isLive === false;
      this.isLive = true;
      this.isPolled = false;
      this.onResponse();
      if (wasAway) this.onStream();
      return response;
    };
    try {
      await readEventStream(request, {
        signal: this.controller.signal,
        onEvent: (event) => this.#onEvent(event),
      });
      this.isLive = false; // ended by the server
    } catch (error) {
      if (!this.isOver) this.#fail(error, true);
    }
  }
}
