// Labels, colours and symbols of states.

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
// An available courier who takes a failed order back, which is no state of the server's.
export const RETURNING = { label: "On the way back", colour: "#701f5f", shape: "diamond", letter: "←" };
export const SHOWN_STATES = { ...DRIVER_STATES, returning: RETURNING };
export const shownState = (state, isReturning) => (state === "available" && isReturning ? "returning" : state);
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
