// Who is there, as the stream tells: rows, counts of the whole fleet, and what is switched off.
import { DRIVER_STATES, DUTIES, el, PRESENCES } from "../words.js";

export const KINDS = {
  state: { words: DRIVER_STATES, place: "legend" },
  duty: { words: DUTIES, place: "duties" },
  presence: { words: PRESENCES, place: "presences" },
};

export class Roster {
  constructor() {
    this.rows = new Map(); // driver_id: row
    this.columns = {};
    this.limits = { silent_after_s: 60, lost_after_s: 300, moving_mps: 0.5 };
    this.counts = null;
    this.hidden = { state: new Set(), duty: new Set(), presence: new Set() };
    this.serverAheadMs = 0;
  }

  now() {
    return Date.now() + this.serverAheadMs;
  }

  /** Take a frame; what changed: `rows`, `gone`, and whether it was `everything`. */
  take(kind, frame) {
    const everything = kind === "snapshot";
    if (everything) {
      this.columns = Object.fromEntries(frame.columns.map((name, n) => [name, n]));
      this.limits = frame.presence;
      this.rows.clear();
    }
    this.serverAheadMs = frame.at_ms - Date.now();
    if (frame.counts) this.counts = frame.counts;
    for (const row of frame.drivers ?? []) this.rows.set(row[0], row);
    for (const id of frame.gone ?? []) this.rows.delete(id);
    return { rows: frame.drivers ?? [], gone: frame.gone ?? [], everything };
  }

  get(id) {
    const row = this.rows.get(id);
    return row && Object.fromEntries(Object.entries(this.columns).map(([name, n]) => [name, row[n]]));
  }

  /** As the server says it of a whole fleet: what has arrived of a device, and when. */
  presenceOf(row) {
    const quietS = (this.now() - row[this.columns.received_at_ms]) / 1000;
    if (quietS > this.limits.lost_after_s) return "lost";
    if (quietS > this.limits.silent_after_s) return "silent";
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

  /** The filters as a tile's address takes them: what is wanted, where anything is not. */
  query() {
    const wanted = [];
    for (const [kind, { words }] of Object.entries(KINDS)) {
      if (!this.hidden[kind].size) continue;
      for (const word of Object.keys(words)) {
        if (!this.hidden[kind].has(word)) wanted.push(`${kind}=${word}`);
      }
    }
    return wanted.join("&");
  }

  /** Whether the filters leave nobody. */
  get showsNobody() {
    return Object.entries(KINDS).some(
      ([kind, { words }]) => this.hidden[kind].size >= Object.keys(words).length,
    );
  }
}

/** The switches of every kind with their counts. `changed` is called after each. */
export function makeSwitches(roster, changed) {
  const counters = {};
  for (const [kind, { words, place }] of Object.entries(KINDS)) {
    for (const [word, [name, colour]] of Object.entries(words)) {
      const count = el("b", {}, "0");
      const button = el(
        "button",
        { type: "button", "aria-pressed": "true", color: colour },
        colour ? el("span", { class: "dot" }) : null,
        name,
        " ",
        count,
      );
      button.addEventListener("click", () => {
        const hidden = roster.hidden[kind];
        if (!hidden.delete(word)) hidden.add(word);
        button.setAttribute("aria-pressed", String(!hidden.has(word)));
        changed();
      });
      (counters[kind] ??= {})[word] = count;
      document.getElementById(place).append(button);
    }
  }
  return () => {
    if (!roster.counts) return;
    for (const [kind, words] of Object.entries(counters)) {
      for (const [word, count] of Object.entries(words)) {
        count.textContent = roster.counts[kind][word] ?? 0;
      }
    }
    document.getElementById("drivers-count").textContent = roster.counts.all.drivers ?? 0;
  };
}
