// The drivers of the stream, the counts of the whole fleet, and the filters.
import { el } from "../elements.js";
import { DRIVER_STATES, DUTIES, PRESENCES, RETURNING, shownState } from "../labels.js";
import { symbolElement } from "./symbols.js";
import { say } from "./texts.js";

const FILTERS = {
  state: { values: DRIVER_STATES, container: "states" },
  duty: { values: DUTIES, container: "duties" },
  presence: { values: PRESENCES, container: "presences" },
};

export class FleetIndex {
  constructor() {
    this.rows = new Map(); // driver_id: row
    this.columns = {};
    this.limits = { silent_after_s: 60, lost_after_s: 300, moving_mps: 0.5 };
    this.counts = null;
    this.returning = new Map(); // of couriers who take an order back, the id and the state at the last poll
    this.hidden = { state: new Set(), duty: new Set(), presence: new Set() };
    this.serverAheadMs = 0;
  }

  now() {
    return Date.now() + this.serverAheadMs;
  }

  /** Apply a frame. Returns the changed `rows`, the `gone` ids, and whether it `isSnapshot`. */
  apply(kind, frame) {
    const isSnapshot = kind === "snapshot";
    if (isSnapshot) {
      this.columns = Object.fromEntries(frame.columns.map((name, n) => [name, n]));
      this.limits = frame.presence;
      this.rows.clear();
    }
    this.serverAheadMs = frame.at_ms - Date.now();
    if (frame.counts) this.counts = frame.counts;
    for (const row of frame.drivers ?? []) this.rows.set(row[0], row);
    for (const id of frame.gone ?? []) this.rows.delete(id);
    return { rows: frame.drivers ?? [], gone: frame.gone ?? [], isSnapshot };
  }

  get(id) {
    const row = this.rows.get(id);
    return row && Object.fromEntries(Object.entries(this.columns).map(([name, n]) => [name, row[n]]));
  }

  /** The state, or `returning` for an available courier who takes an order back. */
  stateOf(row) {
    return shownState(row[this.columns.state], this.returning.has(row[0]));
  }

  /** The number of drivers in that state, of the whole fleet as `counts`. */
  get returningCount() {
    const states = [...this.returning].map(([id, polled]) => this.rows.get(id)?.[this.columns.state] ?? polled);
    return states.filter((state) => state === "available").length;
  }

  /** The presence by the last arrival, as the server computes it. */
  presenceOf(row) {
    const silentS = (this.now() - row[this.columns.received_at_ms]) / 1000;
    if (silentS > this.limits.lost_after_s) return "lost";
    if (silentS > this.limits.silent_after_s) return "silent";
    const speed = row[this.columns.speed_mps];
    return speed !== null && speed < this.limits.moving_mps ? "stationary" : "online";
  }

  isShown(row, presence) {
    return !(
      this.hidden.state.has(row[this.columns.state]) ||
      this.hidden.duty.has(row[this.columns.duty]) ||
      this.hidden.presence.has(presence)
    );
  }

  /** The filters as the query of a tile: the values shown, for each filter in use. */
  query() {
    const parameters = [];
    for (const [kind, { values }] of Object.entries(FILTERS)) {
      if (!this.hidden[kind].size) continue;
      for (const value of Object.keys(values)) {
        if (!this.hidden[kind].has(value)) parameters.push(`${kind}=${value}`);
      }
    }
    return parameters.join("&");
  }

  /** Whether the filters exclude every driver. */
  get isEmpty() {
    return Object.entries(FILTERS).some(
      ([kind, { values }]) => this.hidden[kind].size >= Object.keys(values).length,
    );
  }
}

/** Create the filter buttons with their counts. Returns a function that updates the counts. */
export function createFilters(index, onChange) {
  const counters = {};
  for (const [kind, { values, container }] of Object.entries(FILTERS)) {
    for (const [value, { label, shape, colour, letter }] of Object.entries(values)) {
      const count = el("b", {}, "0");
      const button = el(
        "button",
        { type: "button", "aria-pressed": "true" },
        shape ? symbolElement({ shape, colour, letter }) : null,
        say(label),
        " ",
        count,
      );
      button.addEventListener("click", () => {
        const hidden = index.hidden[kind];
        if (!hidden.delete(value)) hidden.add(value);
        button.setAttribute("aria-pressed", String(!hidden.has(value)));
        onChange();
      });
      (counters[kind] ??= {})[value] = count;
      document.getElementById(container).append(button);
    }
  }
  const returning = el("b", {}, "0");
  const entry = el("span", { id: "returning", hidden: "" }, symbolElement(RETURNING), say("On the way back"), " ", returning);
  counters.state.available.parentElement.after(entry);
  return () => {
    if (!index.counts) return;
    for (const [kind, values] of Object.entries(counters)) {
      for (const [value, count] of Object.entries(values)) {
        count.textContent = index.counts[kind][value] ?? 0;
      }
    }
    const { returningCount } = index;
    entry.hidden = !returningCount;
    returning.textContent = returningCount;
    if (returningCount) counters.state.available.textContent = Math.max(0, index.counts.state.available - returningCount);
    document.getElementById("drivers-count").textContent = index.counts.all.drivers ?? 0;
  };
}
