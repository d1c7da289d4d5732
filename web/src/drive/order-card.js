// The order of the driver: where to go, whom to give it to, and one big button for what comes next.
import { el } from "../elements.js";
import { mapsLink } from "./maps-link.js";
import { language, locale, texts } from "./texts.js";

const BEFORE_PICK_UP = ["assigned", "at_restaurant"];
const HEADINGS = { picked_up: texts.picked };

export function nextStep(order) {
  return BEFORE_PICK_UP.includes(order.state)
    ? { name: texts.picked_up, path: "picked-up" }
    : { name: texts.delivered, path: "delivered" };
}

/**
 * `actions` has next, handOver, decline and fail. `isWaiting`: a command of this order is under way.
 * `stopText` says which of several orders it is.
 */
export function orderCard(order, actions, isWaiting, stopText) {
  const isBefore = BEFORE_PICK_UP.includes(order.state);
  const customer = { ...order.customer, ...order.destination };
  const [giveUp, giveUpText] = isBefore ? [actions.decline, texts.decline] : [actions.fail, texts.failed];
  const disabled = isWaiting ? "" : null;
  return el(
    "div",
    { class: "card", "data-order": order.order_id },
    stopText ? el("p", { class: "label" }, stopText) : null,
    el("h2", {}, HEADINGS[order.state] ?? texts[order.state] ?? order.state),
    stop(texts.pickUpAt, order.restaurant, {
      isLater: !isBefore,
      lines: isBefore ? [order.ready_at && texts.readyAt(clock(order.ready_at)), order.items] : [],
    }),
    stop(texts.deliverTo, { ...customer, name: order.customer?.name ?? texts.customer }, {
      isLater: isBefore,
      contact: order.customer?.contact_rule,
      note: order.customer?.note,
      lines: [order.promised_to && texts.promisedBy(clock(order.promised_to))],
    }),
    el("button", { class: "main", disabled, onclick: actions.next }, nextStep(order).name),
    isBefore || order.has_pin ? null : el("button", { class: "hand-over", disabled, onclick: actions.handOver }, texts.photoOrNote),
    el("button", { class: "danger", disabled, onclick: giveUp }, giveUpText),
  );
}

/** A failed order on its way back to the restaurant. */
export function returnCard(leg, onReturned, isWaiting) {
  return el(
    "div",
    { class: "card return" },
    stop(texts.takeBackTo, leg.restaurant, { heading: "h2", lines: [leg.items] }),
    el("button", { class: "main", disabled: isWaiting ? "" : null, onclick: onReturned }, texts.handedBack),
  );
}

/** An offer, with the seconds that are left for it. */
export function offerCard(offer, actions, isWaiting) {
  const disabled = isWaiting ? "" : null;
  return el(
    "div",
    { class: "card offer" },
    el(
      "div",
      { class: "stop" },
      el("h2", {}, texts.offer),
      el("span", { class: "left", "data-expires": offer.expires_at }),
      el("p", { class: "label" }, texts.pickUpAt),
      el("h3", {}, offer.restaurant?.name ?? ""),
      el("p", {}, distance(offer.pickup_distance_m)),
    ),
    el(
      "div",
      { class: "pair" },
      el("button", { disabled, onclick: actions.decline }, texts.decline),
      el("button", { class: "main", disabled, onclick: actions.accept }, texts.accept),
    ),
  );
}

function stop(label, place, { isLater = false, heading = "p", contact, note, lines = [] }) {
  const canCall = place.phone && contact !== "text";
  const canWrite = place.phone && ["text", "any"].includes(contact);
  return el(
    "div",
    { class: isLater ? "stop later" : "stop" },
    el(heading, { class: "label" }, label),
    el("h3", {}, place.name ?? ""),
    el("p", {}, place.address ?? ""),
    el(
      "a",
      { class: "go", href: mapsLink(place), target: "_blank", rel: "noreferrer", "aria-label": `${texts.go}: ${place.name}` },
      texts.go,
    ),
    ...lines.filter(Boolean).map((line) => el("p", { class: "small" }, line)),
    canCall || canWrite
      ? el(
          "p",
          { class: "contact" },
          canCall ? el("a", { href: `tel:${place.phone}` }, `${texts.call} ${place.phone}`) : null,
          canCall && canWrite ? " · " : null,
          canWrite ? el("a", { href: `sms:${place.phone}` }, texts.write) : null,
        )
      : null,
    note ? el("p", { class: "note" }, note) : null,
  );
}

function clock(instant) {
  return new Date(instant).toLocaleTimeString(locale, { hour: "2-digit", minute: "2-digit" });
}

function distance(metres) {
  if (!Number.isFinite(metres)) return "";
  const format = (value, unit) =>
    value.toLocaleString(language, { style: "unit", unit, maximumFractionDigits: unit === "meter" ? 0 : 1 });
  return texts.distance(metres < 950 ? format(Math.round(metres / 10) * 10, "meter") : format(metres / 1000, "kilometer"));
}
