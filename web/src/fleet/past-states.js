// The states of drivers in the past, and the legend that counts them.
import { getJson } from "../api.js";
import { el } from "../elements.js";
import { DRIVER_STATES, PAST_SYMBOL } from "../labels.js";
import { symbolElement } from "./symbols.js";
import { say } from "./texts.js";

const MAX_DRIVERS = 100; // of one request
const MAX_RANGE_MS = 86_400_000; // of several drivers
// The shape and letter of the state of then, in the colour of the past.
const SYMBOLS = Object.fromEntries(
  Object.entries(DRIVER_STATES).map(([state, { label, shape, letter }]) => [
    state,
    { label: `Past: ${label}`, shape, letter, colour: PAST_SYMBOL.colour, isHollow: true },
  ]),
);

export const pastSymbolOf = (state) => SYMBOLS[state] ?? PAST_SYMBOL;

export class PastStates {
  #changes = new Map(); // driver_id: [[entered_at_ms, state], …]; of the newest request
  #counters = new Map();

  /** Fetch the states of drivers in a range; without them the state is unknown. */
  async load(driverIds, from, to) {
    const changes = (this.#changes = new Map());
    if (driverIds.length > 1 && to - from > MAX_RANGE_MS) return;
    for (let at = 0; at < driverIds.length; at += MAX_DRIVERS) {
      const ids = driverIds.slice(at, at + MAX_DRIVERS).map((id) => `driver_id=${encodeURIComponent(id)}`);
      const range = `from=${from.toISOString()}&to=${to.toISOString()}`;
      const { states } = await getJson(`/fleet/states?${ids.join("&")}&${range}`);
      for (const [id, enteredAt, state] of states) {
        if (!changes.has(id)) changes.set(id, []);
        changes.get(id).push([enteredAt, state]);
      }
    }
  }

  at(driverId, at) {
    return this.#changes.get(driverId)?.findLast(([enteredAt]) => enteredAt <= at)?.[1] ?? null;
  }

  /** Draw the legend with its counts of an instant: [state, …], null for unknown. */
  drawLegend(container, states) {
    if (!this.#counters.size) {
      for (const [state, symbol] of [...Object.entries(SYMBOLS), [null, PAST_SYMBOL]]) {
        const count = el("b", {}, "0");
        const label = state ? DRIVER_STATES[state].label : "State unknown";
        this.#counters.set(state, count);
        container.append(el("span", {}, symbolElement(symbol), say(label), " ", count));
      }
    }
    for (const [state, count] of this.#counters) {
      count.textContent = states.filter((one) => (one in SYMBOLS ? one : null) === state).length;
    }
  }
}
