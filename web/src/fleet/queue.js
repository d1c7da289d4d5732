// The queue: open orders by minutes to their promise, with filters; arrow keys move in it.
import { el } from "../elements.js";
import { ORDER_STATES } from "../labels.js";
import { duration } from "../times.js";
import { say, since } from "./texts.js";

const $ = (id) => document.getElementById(id);
const SHOWN = 50;
const STUCK_REASONS = { no_progress: "no progress", courier_lost: "courier lost" };
const FILTERS = {
  all: ["All", () => true],
  waiting: ["No courier", (order) => order.group === "waiting"],
  stuck: ["Stuck", (order) => order.group === "stuck"],
  late: ["Late", (order, lateS) => lateS > 0 && Boolean(order.promised_to)],
};

export class OrderQueue {
  #filter = "all";
  #isExpanded = false;
  #items = new Map(); // order_id: li

  /** `select(order)` gets a chosen order. */
  constructor({ openOrders, nameOf, select }) {
    Object.assign(this, { openOrders, nameOf, select, selectedId: null });
    for (const [name, [label]] of Object.entries(FILTERS)) {
      const button = el(
        "button",
        { type: "button", "data-filter": name, "aria-pressed": String(name === this.#filter) },
        say(label), " ", el("b", {}, "0"),
      );
      button.addEventListener("click", () => {
        this.#filter = name;
        for (const one of $("queue-filters").children) {
          one.setAttribute("aria-pressed", String(one === button));
        }
        this.draw();
      });
      $("queue-filters").append(button);
    }
    $("more-orders").addEventListener("click", () => {
      this.#isExpanded = !this.#isExpanded;
      this.draw();
    });
    $("orders").addEventListener("keydown", (event) => this.#onKey(event));
  }

  show(orderId) {
    this.selectedId = orderId;
    this.draw();
  }

  draw() {
    const { orders } = this.openOrders;
    const lateS = (order) => this.openOrders.sinceS(order.due_at);
    for (const button of $("queue-filters").children) {
      const [, isIn] = FILTERS[button.dataset.filter];
      button.querySelector("b").textContent = orders.filter((one) => isIn(one, lateS(one))).length;
    }
    $("tab-count").textContent = orders.length;
    const [, isShown] = FILTERS[this.#filter];
    const all = orders.filter((one) => isShown(one, lateS(one)));
    const shown = this.#isExpanded ? all : all.slice(0, SHOWN);
    $("no-orders").hidden = all.length > 0;
    $("more-orders").hidden = all.length <= SHOWN;
    $("more-orders").textContent = this.#isExpanded ? say("Fewer") : say("{} more", all.length - shown.length);
    const items = shown.map((order) => this.#item(order));
    const isSame =
      items.length === $("orders").childElementCount && items.every((one, n) => $("orders").children[n] === one);
    if (!isSame) {
      const focused = $("orders").contains(document.activeElement) ? document.activeElement : null;
      $("orders").replaceChildren(...items);
      if (focused?.isConnected) focused.focus({ preventScroll: true });
      else if (focused) this.#focusAt(0);
    }
    const known = new Set(orders.map((one) => one.order_id));
    for (const id of this.#items.keys()) if (!known.has(id)) this.#items.delete(id);
    this.#keepOneTabStop();
  }

  /** Move the focus into the queue: to the selected order, or the first one. */
  focus() {
    const button = this.#buttons().find((one) => one.tabIndex === 0);
    (button ?? $("queue-filters").firstElementChild).focus();
  }

  /** Select the order after (1) or before (-1) the selected one. */
  step(by) {
    const buttons = this.#buttons();
    const at = buttons.findIndex((one) => one.id === `order-${this.selectedId}`);
    const button = buttons[at < 0 ? (by > 0 ? 0 : buttons.length - 1) : at + by];
    if (!button) return;
    button.focus();
    button.click();
  }

  #buttons() {
    return [...$("orders").querySelectorAll("button")];
  }

  #onKey(event) {
    const buttons = this.#buttons();
    const at = buttons.indexOf(document.activeElement);
    const targets = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 };
    if (at < 0 || !(event.key in targets)) return;
    event.preventDefault();
    this.#focusAt(targets[event.key]);
  }

  #focusAt(n) {
    const button = this.#buttons()[n];
    if (!button) return;
    for (const one of this.#buttons()) one.tabIndex = one === button ? 0 : -1;
    button.focus();
  }

  /** Tab enters the list at one place, and leaves it. */
  #keepOneTabStop() {
    const buttons = this.#buttons();
    const stop =
      buttons.find((one) => one === document.activeElement) ??
      buttons.find((one) => one.id === `order-${this.selectedId}`) ??
      buttons[0];
    for (const one of buttons) one.tabIndex = one === stop ? 0 : -1;
  }

  #item(order) {
    let item = this.#items.get(order.order_id);
    if (!item) {
      const parts = [el("span", { class: "due" }), el("span"), el("span", { class: "pill" })];
      parts.push(el("span", { class: "muted small mono" }, order.order_id.slice(0, 8)));
      parts.push(el("span", { class: "muted small" }));
      const button = el("button", { type: "button", id: `order-${order.order_id}` }, ...parts);
      button.addEventListener("click", () => this.select(this.openOrders.get(order.order_id) ?? order));
      item = el("li", {}, button);
      this.#items.set(order.order_id, item);
    }
    const button = item.firstElementChild;
    const [due, name, pill, , facts] = button.children;
    const { label, colour } = ORDER_STATES[order.state];
    const lateS = this.openOrders.sinceS(order.due_at);
    const isSelected = order.order_id === this.selectedId;
    button.className = [
      isSelected && "selected",
      order.stuck && "stuck",
      lateS > 0 && order.promised_to && "late",
    ].filter(Boolean).join(" ");
    button.setAttribute("aria-pressed", String(isSelected));
    const [amount, caption] = dueText(lateS, Boolean(order.promised_to));
    if (due.dataset.text !== amount + caption) {
      due.replaceChildren(amount, el("small", {}, caption));
      due.dataset.text = amount + caption;
    }
    setText(name, order.customer_name ? `${this.nameOf(order.restaurant_id)} → ${order.customer_name}` : this.nameOf(order.restaurant_id));
    setText(pill, say(label));
    pill.style.setProperty("--color", colour);
    const since_ = order.group === "waiting" ? order.created_at : order.state_at;
    const sinceS = this.openOrders.sinceS(since_);
    setText(facts, [
      order.driver_id ?? say("no courier"),
      order.stuck ? say(STUCK_REASONS[order.stuck]) : null,
      order.group === "waiting" ? say("waits {}", duration(sinceS)) : since(sinceS),
    ].filter(Boolean).join(" · "));
    return item;
  }
}

/** Minutes to the promise, and what they are; without a promise the time is assumed. */
function dueText(lateS, isPromised) {
  const apartS = Math.abs(lateS);
  const amount = apartS < 60 ? "< 1 min" : apartS < 5400 ? `${Math.floor(apartS / 60)} min` : duration(apartS);
  if (!isPromised) return [lateS > 0 ? "–" : `~${amount}`, say("no promise")];
  return [amount, lateS > 0 ? say("late") : say("to promise")];
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
