// The open orders, grouped by urgency, and the commands on the selected one.
import { ApiProblem, fetchAsStaff, getJson, showSignIn, Unauthorized } from "../api.js";
import { el } from "../elements.js";
import { ago, dateAndTime, duration, ORDER_STATES } from "../labels.js";

const $ = (id) => document.getElementById(id);
const GROUPS = {
  waiting: ["Waiting for a courier", 5],
  stuck: ["Stuck", 20],
  under_way: ["Under way", 50],
};
const STUCK_REASONS = { no_progress: "no progress", courier_lost: "courier lost" };
const COMMANDS = {
  confirm: ["Confirm", "Confirmed."],
  assign: ["Assign", "Assigned to"],
  reassign: ["Reassign", "Reassigned to"],
  fail: ["Give up", "Given up."],
  cancel: ["Cancel order", "Cancelled."],
};
const CONFIRMATIONS = { fail: "Yes, give it up", cancel: "Yes, cancel it" };

export class OrderList {
  #expanded = new Set();
  #keys = new Map(); // idempotency keys of commands without a response
  #loaded = null; // an order that is not among the open ones, found by a search
  #orders = { orders: [], counts: {}, allowed: {}, at: 0 };

  constructor({ nameOf, placeOf, select }) {
    Object.assign(this, { nameOf, placeOf, select, selectedId: null });
  }

  async refresh() {
    this.#orders = await getJson("/fleet/orders");
    this.#serverAheadMs = Date.parse(this.#orders.at) - Date.now();
    this.draw();
  }
  #serverAheadMs = 0;

  get(orderId) {
    const open = this.#orders.orders.find((one) => one.order_id === orderId);
    return open ?? (this.#loaded?.order_id === orderId ? this.#loaded : undefined);
  }

  /** Have `get` return an order that a search found, be it open or not. */
  async load({ order_id, driver_id }) {
    if (!this.get(order_id)) this.#loaded = { ...(await getJson(`/orders/${order_id}`)), driver_id };
    return this.get(order_id);
  }

  show(orderId) {
    if (orderId !== this.selectedId) {
      $("order").replaceChildren();
      this.#notify();
    }
    this.selectedId = orderId;
    this.draw();
  }

  draw() {
    const focused = document.activeElement?.id;
    $("orders").replaceChildren(...Object.keys(GROUPS).flatMap((group) => this.#group(group)));
    if (focused && document.activeElement?.id !== focused) $(focused)?.focus({ preventScroll: true });
    this.#drawSelected();
  }

  #sinceS(instant) {
    return (Date.now() + this.#serverAheadMs - Date.parse(instant)) / 1000;
  }

  #group(group) {
    const [title, limit] = GROUPS[group];
    const all = this.#orders.orders.filter((one) => one.group === group);
    const count = this.#orders.counts[group] ?? 0;
    const shown = this.#expanded.has(group) ? all : all.slice(0, limit);
    const toggle = () => {
      if (!this.#expanded.delete(group)) this.#expanded.add(group);
      this.draw();
    };
    const rest = count - shown.length;
    return [
      el("h2", { id: `group-${group}` }, el("b", {}, `${count}`), ` ${title}`),
      el("ol", { "aria-labelledby": `group-${group}` }, ...shown.map((one) => this.#item(one))),
      all.length > limit
        ? el(
            "button",
            { type: "button", id: `more-${group}`, class: "more", onclick: toggle },
            this.#expanded.has(group) ? "Fewer" : `${rest} more`,
          )
        : "",
    ];
  }

  #item(order) {
    const { label, colour } = ORDER_STATES[order.state];
    const since = order.group === "waiting" ? order.created_at : order.state_at;
    const facts = [
      order.driver_id ?? "no courier",
      order.stuck ? STUCK_REASONS[order.stuck] : null,
      order.group === "waiting" ? `waits ${duration(this.#sinceS(since))}` : ago(this.#sinceS(since)),
    ];
    const isSelected = order.order_id === this.selectedId;
    const button = el(
      "button",
      {
        type: "button",
        id: `order-${order.order_id}`,
        class: `${isSelected ? "selected" : ""} ${order.stuck ? "stuck" : ""}`,
        "aria-pressed": String(isSelected),
        onclick: () => this.select(order.driver_id, order.order_id),
      },
      el("span", {}, this.nameOf(order.restaurant_id)),
      el("span", { class: "pill", color: colour }, label),
      el("span", { class: "muted small mono" }, order.order_id.slice(0, 8)),
      el("span", { class: "muted small" }, facts.filter(Boolean).join(" · ")),
    );
    return el("li", {}, button);
  }

  #drawSelected() {
    const order = this.get(this.selectedId);
    $("order").hidden = !order;
    if (!order) return $("order").replaceChildren();
    const version = `${order.order_id} ${order.state} ${order.driver_id}`;
    if ($("order").dataset.version === version && $("order").childElementCount) return; // unchanged
    $("order").dataset.version = version;
    const focused = $("order").contains(document.activeElement) && document.activeElement.id;
    const { label, colour } = ORDER_STATES[order.state];
    const allowed = this.#orders.allowed[order.state] ?? [];
    const commands = Object.keys(COMMANDS).filter((command) => allowed.includes(command));
    const takesDriver = commands.some((one) => one === "assign" || one === "reassign");
    const list = el("datalist", { id: "nearest-drivers" });
    const courier = el("input", {
      id: "courier",
      list: "nearest-drivers",
      placeholder: "the nearest",
      autocomplete: "off",
      spellcheck: "false",
      maxlength: "64",
    });
    $("order").replaceChildren(
      el(
        "h2",
        {},
        el("span", {}, `Order ${order.order_id.slice(0, 8)}`),
        el("span", { class: "pill", color: colour }, label),
      ),
      el("p", {}, this.nameOf(order.restaurant_id), el("span", { class: "muted" }, ` · ${order.driver_id ?? "no courier"}`)),
      order.ended_at ? el("p", { class: "small" }, `${label} ${dateAndTime(order.ended_at)}`) : "",
      takesDriver ? el("label", { for: "courier", class: "small" }, "Courier ", courier, list) : "",
      el(
        "div",
        { class: "actions" },
        ...commands.map((command) => this.#button(command, order, courier)),
      ),
    );
    if (focused !== false) ($(focused) ?? $("order").querySelector("button"))?.focus();
    if (takesDriver) this.#listNearest(order, list);
  }

  #button(command, order, courier) {
    const [label] = COMMANDS[command];
    const button = el("button", { type: "button", id: `do-${command}` }, label);
    const reset = () => {
      button.textContent = label;
      button.classList.remove("destructive");
    };
    button.addEventListener("blur", reset);
    button.addEventListener("click", async () => {
      if (CONFIRMATIONS[command] && !button.classList.contains("destructive")) {
        button.textContent = CONFIRMATIONS[command];
        button.classList.add("destructive");
        return;
      }
      reset();
      const takesDriver = command === "assign" || command === "reassign";
      const driverId = takesDriver ? courier.value.trim() : "";
      button.disabled = true;
      await this.#apply(command, order.order_id, driverId);
      button.disabled = false;
    });
    return button;
  }

  /** Send a command. Shows success only after a response. */
  async #apply(command, orderId, driverId) {
    this.#notify();
    const name = `${orderId} ${command} ${driverId}`;
    const key = this.#keys.get(name) ?? randomKey();
    this.#keys.set(name, key);
    try {
      const response = await fetchAsStaff(`/orders/${orderId}/${command}`, {
        method: "POST",
        headers: { "Content-Type": "application/json", "Idempotency-Key": key },
        body: driverId ? JSON.stringify({ driver_id: driverId }) : "{}",
      });
      this.#keys.delete(name);
      const order = await response.json();
      const notice = COMMANDS[command][1];
      this.#notify(notice.endsWith(".") ? notice : `${notice} ${order.driver_id}.`);
      if (orderId === this.selectedId) this.select(order.driver_id, orderId);
    } catch (error) {
      if (error instanceof ApiProblem && error.status < 500) {
        this.#keys.delete(name);
        this.#notify("", refusal(error));
      } else if (error instanceof Unauthorized) {
        showSignIn();
      } else {
        this.#notify("", "No response: the outcome is unknown. It is safe to try again.");
      }
    }
    await this.refresh().catch(() => {}); // polled in any case
  }

  #notify(notice = "", error = "") {
    $("notice").textContent = notice;
    $("command-error").textContent = error;
  }

  async #listNearest(order, list) {
    const place = this.placeOf(order.restaurant_id);
    if (!place) return;
    const query = `lon_deg=${place[0]}&lat_deg=${place[1]}&limit=8`;
    const nearest = await getJson(`/drivers/nearest?${query}`).catch(() => ({ drivers: [] }));
    list.replaceChildren(
      ...nearest.drivers.map((one) =>
        el("option", { value: one.driver_id }, `${Math.round(one.distance_m)} m`),
      ),
    );
  }
}

/** The text of a refused command, with the possible ones. */
function refusal({ problem, message }) {
  const { current_state: state, allowed } = problem;
  if (!state) return message;
  const label = (ORDER_STATES[state]?.label ?? state).toLowerCase();
  const possible = (allowed ?? []).filter((one) => COMMANDS[one]);
  return `Not possible: the order is ${label}. Possible: ${possible.join(", ") || "nothing more"}.`;
}

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("-");
}
