// Commands on orders: their labels, and sending them so that a repeat is safe.
import { ApiProblem, fetchAsStaff, showSignIn, Unauthorized } from "../api.js";
import { ORDER_STATES } from "../labels.js";
import { complaintsOf, problemText } from "../refusals.js";
import { say } from "./texts.js";

export const COMMANDS = {
  confirm: ["Confirm", "Confirmed."],
  assign: ["Assign", "Assigned to {}."],
  reassign: ["Reassign", "Reassigned to {}."],
  pick_up: ["Picked up", "Recorded as picked up."],
  deliver: ["Delivered", "Recorded as delivered."],
  fail: ["Give up", "Given up."],
  cancel: ["Cancel order", "Cancelled."],
};
export const TAKES_DRIVER = ["assign", "reassign"];
export const FAILURE_REASONS = {
  customer_absent: "Customer absent",
  wrong_address: "Wrong address",
  refused: "Refused",
  damaged: "Damaged",
  accident: "Accident",
  other: "Other",
};

const keys = new Map(); // idempotency keys of requests without a response

/** Send a change. Throws what fetchAsStaff throws; a repeat after no response has the same key. */
export async function send(method, path, body = {}) {
  const content = JSON.stringify(body);
  const name = `${method} ${path} ${content}`;
  const key = keys.get(name) ?? randomKey();
  keys.set(name, key);
  const forget = () => keys.delete(name);
  try {
    const response = await fetchAsStaff(path, {
      method,
      headers: { "Content-Type": "application/json", "Idempotency-Key": key },
      body: content,
    });
    forget();
    return response.status === 204 ? null : await response.json();
  } catch (error) {
    if (error instanceof ApiProblem && error.status < 500) forget();
    throw error;
  }
}

/** The text of what `send` threw. */
export function failureText(error) {
  if (error instanceof Unauthorized) showSignIn();
  if (!(error instanceof ApiProblem) || error.status >= 500) {
    return say("No response: the outcome is unknown. It is safe to try again.");
  }
  const { current_state: state, allowed } = error.problem;
  const complaints = complaintsOf(error.problem);
  if (complaints.length) return problemText(error.problem, complaints.join("; "));
  if (!state) return problemText(error.problem, error.message);
  const label = say(ORDER_STATES[state]?.label ?? state).toLowerCase();
  const possible = (allowed ?? []).filter((one) => COMMANDS[one]).map((one) => say(COMMANDS[one][0]));
  return say(
    "Not possible: the order is {}. Possible: {}.",
    label,
    possible.join(", ") || say("nothing more"),
  );
}

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("-");
}
