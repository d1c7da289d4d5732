// Failed orders on their way back to the restaurant, and the couriers who carry them.
import { AnswerOrder, getJson } from "../api.js";
import { el, fill } from "../elements.js";
import { say, since } from "./texts.js";

const $ = (id) => document.getElementById(id);

export class OpenReturns {
  #answers = new AnswerOrder();

  /** `open(order)` shows an order; `onChange()` follows a change of `index.returning`. */
  constructor({ index, openOrders, open, onChange }) {
    Object.assign(this, { index, openOrders, open, onChange });
  }

  async refresh() {
    const isNewer = this.#answers.begin();
    const { returns } = await getJson("/returns?limit=500");
    if (!isNewer()) return;
    this.#draw(returns);
    const states = new Map(returns.map((one) => [one.driver_id, one.driver_state]));
    const { returning } = this.index;
    if (states.size === returning.size && [...states].every(([id, state]) => returning.get(id) === state)) return;
    this.index.returning = states;
    this.onChange();
  }

  #draw(returns) {
    $("returns").hidden = !returns.length;
    $("return-count").textContent = returns.length;
    const rows = returns.map((one) => [one, since(this.openOrders.sinceS(one.started_at))]);
    const focused = $("return-list").contains(document.activeElement) && document.activeElement.id;
    fill($("return-list"), rows, () => rows.map(([one, ago]) => this.#item(one, ago)));
    if (focused) ($(focused) ?? $("return-list").querySelector("button") ?? $("returns-title")).focus();
  }

  #item({ order_id, driver_id, restaurant_name }, ago) {
    const parts = [
      el("span", {}, restaurant_name),
      el("span", { class: "muted small mono" }, order_id.slice(0, 8)),
      el("span", { class: "muted small" }, `${driver_id} · ${ago}`),
    ];
    const onclick = () => this.open({ order_id, driver_id });
    return el("li", {}, el("button", { type: "button", id: `return-${order_id}`, onclick }, ...parts));
  }
}
