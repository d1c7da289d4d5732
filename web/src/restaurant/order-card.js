// One order of the restaurant: what to cook, until when, and who fetches it.
import { el } from "../elements.js";
import { texts } from "./texts.js";

const MINUTE_MS = 60_000;
const CHOICES_MIN = [10, 15, 20, 30, 45];
const LATER_MIN = 5;

/** `actions` has confirm(order, readyAt) and setReady(order, readyAt). */
export function newOrderCard(order, { clock, actions, isWaiting, preparationMin, now }) {
  const disabled = isWaiting ? "" : null;
  const choices = [...new Set([...(preparationMin ? [preparationMin] : []), ...CHOICES_MIN])].sort((a, b) => a - b);
  return el(
    "li",
    { class: "card fresh", "data-order": order.order_id },
    ...what(order, clock),
    el("p", { class: "label", id: `ready-${order.order_id}` }, texts.readyIn),
    el(
      "div",
      { class: "choices", role: "group", "aria-labelledby": `ready-${order.order_id}` },
      ...choices.map((minutes) =>
        el(
          "button",
          {
            type: "button",
            class: minutes === preparationMin ? "main" : "",
            disabled,
            onclick: () => actions.confirm(order, new Date(now() + minutes * MINUTE_MS)),
          },
          texts.minutes(minutes),
        ),
      ),
    ),
    el("button", { type: "button", class: "main", disabled, onclick: () => actions.confirm(order, null) }, texts.confirm),
  );
}

export function kitchenCard(order, { clock, actions, isWaiting, now }) {
  const disabled = isWaiting ? "" : null;
  const isReady = order.ready_at && Date.parse(order.ready_at) <= now();
  const later = () => new Date(Math.max(now(), Date.parse(order.ready_at ?? 0)) + LATER_MIN * MINUTE_MS);
  return el(
    "li",
    { class: order.courier?.is_here ? "card here" : "card", "data-order": order.order_id },
    ...what(order, clock),
    el("p", { class: isReady ? "ready is-ready" : "ready" }, readiness(order, clock, isReady)),
    el("p", { class: order.courier ? "courier" : "courier muted" }, courier(order, clock)),
    el(
      "div",
      { class: "choices" },
      isReady
        ? null
        : el("button", { type: "button", class: "main", disabled, onclick: () => actions.setReady(order, new Date(now())) }, texts.ready),
      el("button", { type: "button", disabled, onclick: () => actions.setReady(order, later()) }, texts.later(LATER_MIN)),
    ),
  );
}

export function goneRow(order, clock) {
  const at = order.ended_at ?? order.picked_up_at;
  return el(
    "li",
    { "data-order": order.order_id },
    el("span", { class: "name" }, nameOf(order)),
    el("span", {}, texts.states[order.state] ?? order.state),
    el("span", { class: "muted" }, at ? clock(at) : ""),
  );
}

/** How people call the order: its number in the shop's system, or the beginning of its id. */
export function nameOf(order) {
  return order.external_id ?? `${texts.order} ${order.order_id.slice(0, 4)}`;
}

function what(order, clock) {
  const times = [
    texts.ordered(clock(order.created_at)),
    order.scheduled_for && texts.scheduled(clock(order.scheduled_for)),
    order.promised_to && texts.promised(clock(order.promised_to)),
  ];
  return [
    el("h3", {}, nameOf(order), order.customer_name ? el("span", { class: "customer" }, ` ${order.customer_name}`) : null),
    order.items ? el("p", { class: "items" }, order.items) : null,
    el("p", { class: "muted small" }, times.filter(Boolean).join(" · ")),
  ];
}

function readiness(order, clock, isReady) {
  if (!order.ready_at) return texts.noReady;
  return isReady ? texts.isReady(clock(order.ready_at)) : texts.readyAt(clock(order.ready_at));
}

function courier({ courier: found }, clock) {
  if (!found) return texts.noCourier;
  if (found.is_here) return texts.here(found.name);
  return found.arrives_at ? texts.comes(found.name, clock(found.arrives_at)) : texts.comesLater(found.name);
}
