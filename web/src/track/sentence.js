// What the page says of an order, in one sentence and a few lines. No I/O.
import { clock, text } from "./language.js";

const EARLY_STATES = ["created", "confirmed", "assigned", "at_restaurant"];
const EARLY_STEP_MS = 300_000; // an estimate from usual times is shown in steps of 5 minutes

/** Whether the estimate comes from usual times: no courier can be seen on the way. */
export const isEarly = ({ state, position, other_delivery_first: isOtherFirst }) =>
  !position && !isOtherFirst && EARLY_STATES.includes(state);

/** The most important thing, in one sentence. */
export function sentence(track, hasSignal) {
  const { state, eta } = track;
  const end = track.events.findLast((one) => one.state === state);
  if (state === "delivered") return text("deliveredAt", { time: clock(end?.occurred_at ?? Date.now()) });
  if (state === "cancelled") return text("cancelledAt", { time: clock(end?.occurred_at ?? Date.now()) });
  if (state === "failed") return text("failedAt");
  if (!hasSignal) return text("noSignal");
  if (state === "at_customer" || !eta) return text(`states.${state}`);
  const [from, to] = range(track);
  return from === to ? text("arrivingAbout", { from }) : text("arriving", { from, to });
}

/** The band of the arrival as two times of day; the zone stands once. */
export function range(track) {
  let [from, to] = [track.eta.earliest_at ?? track.eta.p10_at, track.eta.latest_at ?? track.eta.p90_at].map(Date.parse);
  if (isEarly(track)) {
    from = Math.floor(from / EARLY_STEP_MS) * EARLY_STEP_MS;
    to = Math.ceil(to / EARLY_STEP_MS) * EARLY_STEP_MS;
  }
  const isOne = clock(from) === clock(to);
  return [clock(from, { withZone: isOne }), clock(to)];
}

/** What else there is to say: lines, the most important first. */
export function notices(track) {
  const { state, late_by_s: lateS, other_delivery_first: isOtherFirst, ended_reason: reason, eta } = track;
  const isNear = track.nearby_at && eta && ["picked_up", "arriving"].includes(state);
  const lines = [];
  if (reason) lines.push(text(`reasons.${reason}`) || reason); // a known one, or what staff wrote
  if (lateS >= 60) lines.push(text("late", { minutes: Math.round(lateS / 60) }));
  if (isOtherFirst) lines.push(text("otherFirst"));
  if (isNear) lines.push(text("nearby"));
  if (eta && isEarly(track)) lines.push(text(state === "created" || state === "confirmed" ? "early" : "notSeenYet"));
  return lines;
}

/** How the estimate was made. */
export function describeEta(track) {
  const [from, to] = range(track);
  const when = from === to ? text("about", { from }) : text("between", { from, to });
  const { route, speeds } = track.eta;
  return text("basis", { when, route: text(`routes.${route}`), speeds: text(`speeds.${speeds}`) });
}
