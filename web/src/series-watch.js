// One choice of a series: its history, then its points as they come. Nothing of it outlives it:
// a new choice is a new Watch, and whatever answers late finds that its own is over.
import { Points, readEvents } from "./series-data.js";

const MOST_RECENT = 5000; // points that came live, kept for the next history
const PATIENCE_MS = 15_000;
const AGAIN_MS = 1000;
const SILENT_MS = 25_000; // a heartbeat comes every 10 s: the line is dead

export class Watch {
  constructor(name, { fetchIt, onChange, onTrouble }) {
    this.name = name;
    this.unit = "";
    this.data = new Points();
    this.recent = new Points([], MOST_RECENT);
    this.loaded = null; // the history's { from, to, stands_for }
    this.pending = []; // came since the last frame
    this.events = 0;
    this.isOver = false;
    this.isLive = null; // null: nothing known yet
    this.controller = new AbortController();
    Object.assign(this, { fetchIt, onChange, onTrouble });
    if (!this.isDrivers) this.#follow();
  }

  /** A driver's own battery or speed has no stream: its history is asked for again and again. */
  get isDrivers() {
    return this.name.split("/").length === 3;
  }

  get path() {
    return `/series/${this.name.split("/").map(encodeURIComponent).join("/")}`;
  }

  end() {
    this.isOver = true;
    this.controller.abort();
  }

  /** Ask for a stretch, in epoch seconds; a newer question makes an older answer void. */
  async load(from, to, points) {
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    const query = new URLSearchParams({
      from: new Date(from * 1000).toISOString(),
      to: new Date(to * 1000).toISOString(),
      points: String(Math.max(2, Math.min(5000, Math.round(points)))),
    });
    const late = AbortSignal.timeout(PATIENCE_MS);
    try {
      const signal = AbortSignal.any([asking.signal, this.controller.signal, late]);
      const answer = await (await this.fetchIt(`${this.path}?${query}`, { signal })).json();
      if (this.isOver || asking.signal.aborted) return;
      if (this.isDrivers) this.isLive = true;
      this.unit = answer.unit;
      this.loaded = { from, to, stands_for: answer.stands_for };
      this.data = new Points(answer.points);
      const { xs, ys } = this.recent;
      this.data.add(xs.map((x, n) => [x * 1000, ys[n]]));
      this.onChange();
    } catch (error) {
      if (this.isOver || asking.signal.aborted) return;
      if (this.isDrivers) this.isLive = false;
      this.onTrouble(error);
    }
  }

  /** Put what has come since the last frame where it belongs; say whether there was anything. */
  settle() {
    if (!this.pending.length) return false;
    const points = this.pending;
    this.pending = [];
    this.data.add(points);
    this.recent.add(points);
    return true;
  }

  #take(event) {
    if (this.isOver || event.event !== "points") return;
    this.lastId = event.id;
    const { name, points } = JSON.parse(event.data);
    if (name !== this.name) return;
    this.events++;
    for (const point of points) this.pending.push(point);
    if (this.pending.length > MOST_RECENT) this.settle(); // a hidden page draws no frames
    this.onChange();
  }

  async #follow() {
    while (!this.isOver) {
      const silence = new AbortController();
      let timer;
      const heard = () => {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(new Error("silent")), SILENT_MS);
      };
      try {
        const headers = this.lastId ? { "Last-Event-ID": this.lastId } : {};
        const signal = AbortSignal.any([this.controller.signal, silence.signal]);
        heard();
        const answer = await this.fetchIt(`${this.path}/stream`, { headers, signal });
        this.isLive = true;
        await readEvents(answer, (event) => this.#take(event), heard);
      } catch (error) {
        if (!this.isOver) this.onTrouble(error);
      } finally {
        clearTimeout(timer);
      }
      if (this.isOver) return;
      this.isLive = false;
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS * (1 + Math.random())));
    }
  }
}
