// The open orders as the server last listed them, and one that a search or the address named.
import { AnswerOrder, getJson } from "../api.js";

export class OpenOrders {
  #loaded = null; // an order that may have ended
  #serverAheadMs = 0;
  #answers = new AnswerOrder();
  #loads = 0;

  constructor() {
    this.orders = [];
    this.counts = {};
    this.allowed = {};
  }

  async refresh() {
    const isNewer = this.#answers.begin();
    const answer = await getJson("/fleet/orders");
    if (!isNewer()) return;
    Object.assign(this, { orders: answer.orders, counts: answer.counts, allowed: answer.allowed });
    this.#serverAheadMs = Date.parse(answer.at) - Date.now();
  }

  get(orderId) {
    const open = this.orders.find((one) => one.order_id === orderId);
    return open ?? (this.#loaded?.order_id === orderId ? this.#loaded : undefined);
  }

  /** Have `get` return an order, be it open or not. Null if another one was wanted since. */
  async load({ order_id, driver_id }) {
    const load = (this.#loads += 1);
    if (!this.get(order_id)) {
      const found = await getJson(`/orders/${order_id}`);
      if (load !== this.#loads) return null;
      const last = found.assignments?.at(-1)?.driver_id;
      this.#loaded = { ...found, driver_id: found.driver_id ?? driver_id ?? last ?? null };
    }
    return this.get(order_id);
  }

  /** Another order was chosen: one that is being loaded is no longer wanted. */
  dropLoad() {
    this.#loads += 1;
  }

  /** An order that a command has just changed. */
  update(order) {
    this.#answers.dropRequested();
    const known = this.orders.findIndex((one) => one.order_id === order.order_id);
    if (order.ended_at || known < 0) {
      if (known >= 0) this.orders.splice(known, 1);
      this.#loaded = { ...this.#loaded, ...order };
    } else this.orders[known] = { ...this.orders[known], ...order };
  }

  /** Seconds since an instant, by the server's clock; negative before it. */
  sinceS(instant) {
    return (Date.now() + this.#serverAheadMs - Date.parse(instant)) / 1000;
  }
}
