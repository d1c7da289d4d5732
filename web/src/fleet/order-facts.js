// What the selected order is, and how it ended.
import { el } from "../elements.js";
import { clock, dateAndTime } from "../times.js";
import { FAILURE_REASONS } from "./commands.js";
import { say } from "./texts.js";

/** The list of an order's details, with its estimate. `open(order)` shows a related one. */
export function orderFacts(details, eta, open) {
  const at = (instant) => (instant ? dateAndTime(instant) : null);
  const window = [at(details.promised_from), at(details.promised_to)].filter(Boolean).join(" – ");
  const { delivery, cancellation, failure, return_leg: leg } = details;
  const rows = [
    ["Number", details.external_id],
    ["Customer", details.customer_name],
    ["Phone", details.customer_phone],
    ["Address", details.address],
    ["Door note", details.door_note],
    ["Items", details.items],
    ["Pickup", details.pickup?.address],
    ["Ready at", at(details.ready_at)],
    ["Scheduled for", at(details.scheduled_for)],
    ["Promised", window],
    ["Expected", eta && [eta.p10_at ?? eta.earliest_at, eta.p90_at ?? eta.latest_at].filter(Boolean).map(clock).join(" – ")],
    ["PIN", details.has_pin && (delivery?.pin ? say("given") : say("required"))],
    ["Created", at(details.created_at)],
    ["Ended", at(details.ended_at)],
    ["Reason", failure && say(FAILURE_REASONS[failure.reason] ?? failure.reason)],
    ["Note", failure?.note ?? delivery?.note],
    ["Reason", cancellation?.reason],
    ["Photo", details.has_photo && el("a", { href: `/orders/${details.order_id}/photo` }, say("Show"))],
    ["On its way back", leg && (leg.ended_at ? say("returned {}", at(leg.ended_at)) : say("with {}", leg.driver_id))],
    ["Tries again", related(details.retry_of, open)],
    ["Next attempt", related(details.retry_order_id, open)],
  ];
  return rows
    .filter(([, value]) => value)
    .flatMap(([name, value]) => [el("dt", {}, say(name)), el("dd", {}, value)]);
}

function related(orderId, open) {
  if (!orderId) return null;
  return el("button", { type: "button", onclick: () => open({ order_id: orderId }) }, orderId.slice(0, 8));
}
