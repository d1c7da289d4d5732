// The selected order: what it is, the commands that its state allows, couriers, offers, timeline.
import { getJson } from "../api.js";
import { el } from "../elements.js";
import { ORDER_STATES } from "../labels.js";
import { clock } from "../times.js";
import { COMMANDS, failureText, FAILURE_REASONS, send, TAKES_DRIVER } from "./commands.js";
import { CourierChoice } from "./courier-choice.js";
import { orderFacts } from "./order-facts.js";
import { mayCommand } from "./rights.js";
import { say } from "./texts.js";
import { readTimeline } from "./timeline.js";

const NEXT_STEPS = { "": "Nothing more", retry: "Another attempt, as a new order", return: "Back to the restaurant" };
const $ = (id) => document.getElementById(id);

export class OrderPanel {
  #version = "";
  #drawn = {}; // the order and its state that are drawn
  #reads = 0;
  #hasFailed = false; // to read more

  /** `onChange(order)` gets an order after a command, `notify(notice, error)` what to say. */
  constructor({ openOrders, nameOf, onChange, notify, close, open }) {
    Object.assign(this, { openOrders, nameOf, onChange, notify, close, open, orderId: null });
    this.details = null; // of the order shown
    this.couriers = new CourierChoice();
  }

  show(orderId) {
    if (orderId !== this.orderId) this.#version = "";
    this.orderId = orderId;
    this.draw();
  }

  draw() {
    const order = this.openOrders.get(this.orderId);
    $("order").hidden = !order;
    if (!order) return $("order").replaceChildren();
    const allowed = (mayCommand() && this.openOrders.allowed[order.state]) || [];
    const version = [order.order_id, order.state, order.driver_id, order.order_seq, ...allowed].join(" ");
    if (version === this.#version) return; // unchanged
    this.#version = version;
    const focused = $("order").contains(document.activeElement) && (document.activeElement.id || "order-title");
    const { label, colour } = ORDER_STATES[order.state];
    const commands = Object.keys(COMMANDS).filter((command) => allowed.includes(command));
    // What is being typed stays, as long as it is about the same order and still possible.
    const isSame = this.#drawn.order_id === order.order_id;
    const reason = isSame && $("reason")?.querySelector("form[data-command]");
    const keepsCourier = isSame && this.#drawn.state === order.state;
    const [courier, stopNo] = ["courier", "stop-no"].map((id) => (keepsCourier ? ($(id)?.value ?? "") : ""));
    this.#drawn = { order_id: order.order_id, state: order.state };
    const assigning = commands.find((one) => TAKES_DRIVER.includes(one));
    $("order").replaceChildren(
      el(
        "h2",
        { tabindex: "-1", id: "order-title" },
        el("span", {}, say("Order {}", order.order_id.slice(0, 8))),
        el("span", { class: "pill", color: colour }, say(label)),
        el("button", { type: "button", class: "close", "aria-label": say("Close"), onclick: this.close }, "✕"),
      ),
      el("p", {}, this.nameOf(order.restaurant_id), el("span", { class: "muted" }, ` · ${order.driver_id ?? say("no courier")}`)),
      el("dl", { id: "order-facts" }),
      assigning ? this.#courierForm(order, assigning) : "",
      el("div", { class: "actions" }, ...commands.filter((one) => one !== assigning).map((one) => this.#button(one, order))),
      el("div", { id: "reason" }),
      el("div", { class: "actions" }, order.ended_at || !mayCommand() ? "" : el("button", { type: "button", id: "new-link", onclick: () => this.#replaceLink(order) }, say("New link for the customer"))),
      el("p", { id: "customer-link", class: "link" }),
      el("h3", {}, say("Timeline")),
      el("ol", { class: "timeline", id: "timeline" }),
    );
    if (reason && commands.includes(reason.dataset.command)) $("reason").append(reason);
    if ($("courier")) $("courier").value = courier;
    if ($("stop-no")) $("stop-no").value = stopNo;
    if (focused) ($(focused) ?? $("order-title")).focus();
    this.#readMore(order).catch(() => (this.#hasFailed = true));
  }

  /** Draw again what does not come with the order: its restaurant's name. */
  redraw() {
    this.#version = "";
    this.draw();
  }

  /** Read the couriers again, and what could not be read: an ended order changes no more. */
  async refresh() {
    const order = this.openOrders.get(this.orderId);
    if (order && this.#hasFailed) return this.#readMore(order);
    if (order) await this.#readCouriers(order);
  }

  async #readCouriers(order) {
    if (!order.ended_at && $("couriers")) await this.couriers.refresh(order.order_id);
  }

  async #readMore(order) {
    const read = (this.#reads += 1);
    const [details, timeline, track] = await Promise.all([
      getJson(`/orders/${order.order_id}`),
      readTimeline(order.order_id),
      order.ended_at ? null : getJson(`/track/${order.order_id}`).catch(() => null), // shown without
      this.#readCouriers(order),
    ]);
    if (read !== this.#reads || order.order_id !== this.orderId) return;
    this.#hasFailed = false;
    this.details = details;
    $("order-facts")?.replaceChildren(...orderFacts(details, track?.eta, this.open));
    if (details.return_leg && !details.return_leg.ended_at && mayCommand()) {
      const confirm = () => this.#apply("returned", order.order_id, {});
      $("reason").replaceChildren(
        el("div", { class: "actions" }, el("button", { type: "button", id: "do-returned", onclick: confirm }, say("Back at the restaurant"))),
      );
    }
    $("timeline")?.replaceChildren(...timeline);
  }

  #courierForm(order, command) {
    const [label] = COMMANDS[command];
    const form = el(
      "form",
      { id: "courier-form" },
      el("h3", { id: "couriers-title" }, say("Couriers, the quickest first")),
      el("ol", { id: "couriers", "aria-labelledby": "couriers-title" }),
      el(
        "label",
        {},
        say("Courier"),
        el("input", { id: "courier", placeholder: say("the nearest"), autocomplete: "off", spellcheck: "false", maxlength: "64" }),
      ),
      el(
        "label",
        {},
        say("Stop number"),
        el("input", { id: "stop-no", type: "number", min: "1", max: "100", placeholder: say("the least detour") }),
      ),
      el(
        "div",
        { class: "actions" },
        el("button", { class: "primary", id: `do-${command}` }, say(label)),
        command === "assign"
          ? el("button", { type: "button", id: "do-offer", onclick: () => this.#offer(order) }, say("Offer"))
          : "",
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const driverId = $("courier").value.trim();
      const stopNo = $("stop-no").valueAsNumber;
      const body = { ...(driverId && { driver_id: driverId }), ...(stopNo && { stop_no: stopNo }) };
      this.#apply(command, order.order_id, body);
    });
    this.couriers.attach(form);
    return form;
  }

  #button(command, order) {
    const [label] = COMMANDS[command];
    const needsReason = command === "cancel" || command === "fail";
    const run = () => (needsReason ? this.#askReason(command, order) : this.#apply(command, order.order_id, {}));
    return el("button", { type: "button", id: `do-${command}`, onclick: run }, say(label));
  }

  /** A destructive command needs a second press, and may have a reason. */
  #askReason(command, order) {
    const isFailure = command === "fail";
    const reasons = Object.entries(FAILURE_REASONS).map(([value, label]) => el("option", { value }, say(label)));
    const choice = isFailure ? el("select", { id: "reason-choice" }, ...reasons) : null;
    // A server that knows cancellations takes a next step, too.
    const next =
      isFailure && this.details && "cancellation" in this.details
        ? el("select", { id: "next-step" }, ...Object.entries(NEXT_STEPS).map(([value, label]) => el("option", { value }, say(label))))
        : null;
    const text = el("input", { id: "reason-text", maxlength: "500", autocomplete: "off" });
    const form = el(
      "form",
      { "data-command": command },
      choice && el("label", {}, say("Reason"), choice),
      next && el("label", {}, say("What comes next"), next),
      el("label", {}, isFailure ? say("Note") : say("Reason, which the customer may read"), text),
      el(
        "div",
        { class: "actions" },
        el("button", { class: "destructive", id: "do-it" }, isFailure ? say("Yes, give it up") : say("Yes, cancel it")),
        el("button", { type: "button", onclick: () => this.#closeReason(command) }, say("Back")),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const note = text.value.trim();
      const body = isFailure
        ? { reason: choice.value, ...(note && { note }), ...(next?.value && { next_step: next.value }) }
        : note ? { reason: note } : {};
      this.#apply(command, order.order_id, body);
    });
    $("reason").replaceChildren(form);
    (choice ?? text).focus();
  }

  #closeReason(command) {
    $("reason").replaceChildren();
    $(`do-${command}`)?.focus();
  }

  /** Send a command. Shows success only after a response. */
  async #apply(command, orderId, body) {
    await this.#run(async () => {
      const order = await send("POST", `/orders/${orderId}/${command}`, body);
      if ($("reason").contains(document.activeElement)) $("order-title").focus(); // not nowhere, until it is drawn again
      if (orderId === this.orderId) $("reason").replaceChildren();
      this.notify(say(COMMANDS[command]?.[1] ?? "Recorded.", order.driver_id));
      this.#version = "";
      await this.onChange(command === "returned" ? null : order);
    });
  }

  async #offer(order) {
    const driverId = $("courier").value.trim();
    await this.#run(async () => {
      const offer = await send("POST", `/orders/${order.order_id}/offers`, driverId ? { driver_id: driverId } : {});
      this.notify(say("Offered to {} until {}.", offer.driver_id, clock(offer.expires_at)));
      await this.#readMore(order).catch(() => (this.#hasFailed = true));
    });
  }

  async #replaceLink(order) {
    await this.#run(async () => {
      const { customer_link: link } = await send("POST", `/orders/${order.order_id}/link`);
      if (order.order_id !== this.orderId) return; // another order's panel: not its link
      $("customer-link").replaceChildren(el("a", { href: link }, link));
      this.notify(say("The earlier links no longer work."));
    });
  }

  async #run(work) {
    this.notify();
    const buttons = [...$("order").querySelectorAll("button")];
    const focused = $("order").contains(document.activeElement) && document.activeElement;
    for (const one of buttons) one.disabled = true;
    try {
      await work();
    } catch (error) {
      this.notify("", failureText(error));
      await this.onChange(null);
    } finally {
      for (const one of buttons) one.disabled = false;
      if (focused && document.activeElement === document.body) (focused.isConnected ? focused : $("order-title"))?.focus();
    }
  }
}
