// States in colours and in words.
export const DRIVER_STATES = {
  available: ["Available", "#2a9d5c"],
  to_restaurant: ["To restaurant", "#e08a00"],
  at_restaurant: ["At restaurant", "#c8432b"],
  to_customer: ["To customer", "#2f6fed"],
  at_customer: ["At customer", "#8b3fd9"],
  on_break: ["On break", "#a58f4a"],
  off_duty: ["Off duty", "#8a8f98"],
};

export const DUTIES = {
  on_duty: ["On duty"],
  on_break: ["On break"],
  off_duty: ["Off duty"],
};

export const PRESENCES = {
  online: ["Online"],
  stationary: ["Stationary"],
  silent: ["Silent"],
  lost: ["Lost"],
};

export const ORDER_STATES = {
  created: ["Created", "#8a8f98"],
  confirmed: ["Confirmed", "#5f7a8c"],
  assigned: ["Assigned", "#e08a00"],
  at_restaurant: ["At restaurant", "#c8432b"],
  picked_up: ["Picked up", "#2f6fed"],
  arriving: ["Arriving", "#1f9ad6"],
  at_customer: ["At the door", "#8b3fd9"],
  delivered: ["Delivered", "#2a9d5c"],
  cancelled: ["Cancelled", "#8a8f98"],
  failed: ["Failed", "#b3261e"],
};

export const WAITING_STATES = ["created", "confirmed"];
export const ACTIVE_STATES = ["assigned", "at_restaurant", "picked_up", "arriving", "at_customer"];
export const FETCHED_STATES = ["picked_up", "arriving", "at_customer", "delivered"];

/** A time in seconds as people say it. */
export function lasting(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

export function ago(seconds) {
  return seconds < 2 ? "now" : `${lasting(seconds)} ago`;
}

/** How long it takes, as a customer plans: `12 min`, or `10–14 min` where that is known. */
export function minutes(low_s, high_s = low_s) {
  if (high_s < 60) return "< 1 min";
  const [low, high] = [low_s, high_s].map((one) => Math.max(1, Math.round(one / 60)));
  return low < high ? `${low}–${high} min` : `${high} min`;
}

export function clock(instant) {
  return new Date(instant).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

/** Make an element: nothing of ours is ever parsed as HTML. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "color") element.style.setProperty("--color", value);
    else if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
