// An order's timeline: what happened when, and who did it.
import { getJson } from "../api.js";
import { el } from "../elements.js";
import { ORDER_STATES } from "../labels.js";
import { clockWithSeconds, dateAndTime } from "../times.js";
import { FAILURE_REASONS } from "./commands.js";
import { say } from "./texts.js";

const COMMANDS = {
  create: "Created",
  confirm: "Confirmed",
  assign: "Assigned to {}",
  reassign: "Reassigned to {}",
  decline: "Declined",
  pick_up: "Picked up",
  deliver: "Delivered",
  cancel: "Cancelled",
  fail: "Given up",
};
const OFFERS = {
  offered: "Offered to {}",
  accepted: "{} accepted the offer",
  declined: "{} declined the offer",
  expired: "The offer to {} expired",
  withdrawn: "The offer to {} was withdrawn",
};
const LINKS = { replaced: "The customer got a new link", revoked: "The customer's links were revoked" };
const RETURNS = { returned: "Back at the restaurant" };

/** Fetch an order's timeline. Resolves to list items, the newest last. */
export async function readTimeline(orderId) {
  const { entries } = await getJson(`/orders/${orderId}/timeline`);
  return entries.map((entry) =>
    el(
      "li",
      {},
      el("time", { datetime: entry.occurred_at, title: dateAndTime(entry.occurred_at) }, clockWithSeconds(entry.occurred_at)),
      el("span", {}, describe(entry), el("span", { class: "muted" }, ` · ${author(entry)}`)),
    ),
  );
}

function describe({ kind, what, driver_id: driverId, reason, note }) {
  const texts = { command: COMMANDS, offer: OFFERS, link: LINKS, return: RETURNS }[kind];
  const text = kind === "evidence" ? say(ORDER_STATES[what]?.label ?? what) : say(texts?.[what] ?? what, driverId ?? "");
  const why = [reason && say(FAILURE_REASONS[reason] ?? reason), note].filter(Boolean).join(": ");
  return why ? `${text} (${why})` : text;
}

function author({ kind, actor, who, driver_id: driverId }) {
  if (kind === "evidence") return say("GPS of {}", driverId);
  if (actor === "customer") return say("customer");
  if (actor === "driver") return say("courier {}", who);
  return who ?? (kind === "offer" ? say("policy") : say("staff"));
}
