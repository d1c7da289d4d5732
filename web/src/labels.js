// Labels, colours and symbols of states; formatting of durations and times.

// Colours after Okabe and Ito, distinguishable with any colour vision. A driver's symbol tells the
// states apart without colour: a diamond travels, a square waits, a circle has no order.
export const DRIVER_STATES = {
  available: { label: "Available", colour: "#009e73", shape: "circle", letter: "A" },
  to_restaurant: { label: "To restaurant", colour: "#e69f00", shape: "diamond", letter: "R" },
  at_restaurant: { label: "At restaurant", colour: "#b8420b", shape: "square", letter: "R" },
  to_customer: { label: "To customer", colour: "#56b4e9", shape: "diamond", letter: "C" },
  at_customer: { label: "At customer", colour: "#0b4f94", shape: "square", letter: "C" },
  on_break: { label: "On break", colour: "#f0e442", shape: "circle", letter: "B" },
  off_duty: { label: "Off duty", colour: "#7a7f88", shape: "circle", letter: "O" },
};
// An available courier who takes a failed order back; the server's states do not tell it.
export const RETURNING = { label: "On the way back", colour: "#cc79a7", shape: "diamond", letter: "←" };
export const PAST_SYMBOL = { label: "Past position", colour: "#a05fb4", shape: "ring", letter: "" };
export const UNKNOWN_SYMBOL = { ...DRIVER_STATES.off_duty, letter: "?" };

export const DUTIES = {
  on_duty: { label: "On duty" },
  on_break: { label: "On break" },
  off_duty: { label: "Off duty" },
};

export const PRESENCES = {
  online: { label: "Online" },
  stationary: { label: "Stationary" },
  silent: { label: "Silent" },
  lost: { label: "Lost" },
};

export const ORDER_STATES = {
  created: { label: "Created", colour: "#7a7f88" },
  confirmed: { label: "Confirmed", colour: "#5f7a8c" },
  assigned: { label: "Assigned", colour: "#e69f00" },
  at_restaurant: { label: "At restaurant", colour: "#b8420b" },
  picked_up: { label: "Picked up", colour: "#56b4e9" },
  arriving: { label: "Arriving", colour: "#0072b2" },
  at_customer: { label: "At the door", colour: "#0b4f94" },
  delivered: { label: "Delivered", colour: "#009e73" },
  cancelled: { label: "Cancelled", colour: "#7a7f88" },
  failed: { label: "Failed", colour: "#b3261e" },
};

export const RESTAURANT_COLOUR = "#b5733d";
export const DOOR_COLOUR = "#16202c";

export const PICKED_UP_STATES = ["picked_up", "arriving", "at_customer", "delivered"];
export const FINAL_STATES = ["delivered", "cancelled", "failed"];

/** A duration in seconds, rounded: `45 s`, `12 min`, `3 h`. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

export function ago(seconds) {
  return seconds < 2 ? "now" : `${duration(seconds)} ago`;
}

/** A range of durations in minutes: `12 min`, `10–14 min`, `< 1 min`. */
export function minutes(low_s, high_s = low_s) {
  if (high_s < 60) return "< 1 min";
  const [low, high] = [low_s, high_s].map((one) => Math.max(1, Math.round(one / 60)));
  return low < high ? `${low}–${high} min` : `${high} min`;
}

// One each: to create a format takes longer than all else on a page.
const TIME = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const TIME_WITH_SECONDS = new Intl.DateTimeFormat([], { timeStyle: "medium", hour12: false });

/** A time of day: `14:05`. */
export function clock(instant) {
  return TIME.format(new Date(instant));
}

/** A time of day with seconds: `14:05:09`. */
export function clockWithSeconds(instant) {
  return TIME_WITH_SECONDS.format(new Date(instant));
}

/** A date and a time of day: `11/29/26, 2:05:09 PM`. */
export function dateAndTime(instant) {
  return new Date(instant).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });
}

/** The text shown while the page has no connection. */
export function noConnection(sinceMs) {
  return `No connection to the server since ${clockWithSeconds(sinceMs)}. Retrying…`;
}
