// The customer's page: exchanges the link's token for a cookie, then follows the order's stream. The
// map's code, thirty times as large, is loaded when the order's state is shown.
import { el } from "./elements.js";
import { ago, clock, clockWithSeconds, DOOR_COLOUR, minutes, noConnection, RESTAURANT_COLOUR } from "./labels.js";
import { loadMapCode } from "./map-loader.js";
import { LINK_NOT_FOUND, OrderStream } from "./order-stream.js";

const $ = (id) => document.getElementById(id);
const orderId = location.pathname.split("/").pop();
const orderPath = `/track/${encodeURIComponent(orderId)}`;

const STEPS = [
  ["created", "Order placed"],
  ["confirmed", "Confirmed by the restaurant"],
  ["assigned", "Courier on the way to the restaurant"],
  ["at_restaurant", "Courier at the restaurant"],
  ["picked_up", "On the way to you"],
  ["arriving", "Almost there"],
  ["at_customer", "At your door"],
  ["delivered", "Delivered"],
];
const FINAL_LABELS = { delivered: "Delivered", cancelled: "Cancelled", failed: "Could not be delivered" };
const MOVING_STATES = ["assigned", "picked_up", "arriving"]; // need a position to be believed
const NO_SIGNAL = "No signal from the courier";
const COLOURS = { live: "#2f6fed", recent: "#2f6fed", stale: "#b86e00", lost: "#6d747e" };
const MAX_AGES_S = [["live", 15], ["recent", 60], ["stale", 300], ["lost", Infinity]];
const MAX_COUNTED_AGE_S = 60; // of a position: from then on the estimate is not counted down
const ROUTES = { road: "along the streets", straight_line: "from the distance" };
const SPEEDS = {
  learned: "at the pace of past rides",
  observed: "at this courier's pace",
  assumed: "at a usual pace",
};

let orderMap = null; // until its code is loaded, and where the browser cannot draw one
let isMapRequested = false;
let track = null; // the answer of GET /track, kept up to date by the stream
let receivedAt = 0; // of the last position or snapshot
let lostSince = null; // while there is no connection: the instant of the last data

const stream = new OrderStream(orderPath, {
  snapshot(newTrack) {
    receivedAt = Date.now();
    track = newTrack;
    orderMap?.replace(track, colour());
    draw();
    openMap();
  },
  position: update,
  order({ order_id, assignment_no, position, eta, ...event }) {
    if (track.events.some((one) => one.order_seq === event.order_seq)) return; // in the snapshot
    track.events.push(event);
    const { state, order_seq } = event;
    const visible = position === undefined ? {} : { position, eta }; // with the newest event only
    update({ state, order_seq, assignment_no, ...visible });
  },
  connection(since) {
    lostSince = since;
    setText("connection", since === null ? "" : noConnection(since));
    draw();
  },
});
globalThis.doorstepEvents = stream.ids; // for the console and the browser tests

/** Load the map's code once; after a failure, with the next snapshot again. */
async function openMap() {
  if (isMapRequested) return;
  isMapRequested = true;
  try {
    const { OrderMap } = await loadMapCode($("map"), track).catch((error) => {
      isMapRequested = false;
      throw error;
    });
    document.body.classList.remove("no-map");
    orderMap = new OrderMap(orderPath, track, colour());
  } catch {
    document.body.classList.add("no-map"); // the page works without it
  }
}

async function openSession() {
  const token = decodeURIComponent(location.hash.slice(1));
  if (!token) return;
  const response = await fetch(`${orderPath}/session`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
    signal: AbortSignal.timeout(10_000),
  });
  if (response.status === 429 || response.status >= 500) throw new Error(`${response.status}`);
  // Remove the token from the address bar, so that screenshots and the history do not contain it.
  if (response.ok) history.replaceState(null, "", location.pathname);
}

function showLinkEnded() {
  $("link-ended").hidden = false;
  $("card").inert = $("stage").inert = true;
  $("retry").focus();
}

function update(members) {
  receivedAt = Date.now();
  Object.assign(track, members);
  orderMap?.update(track, colour());
  draw();
}

/** The seconds since the last data. Frozen while there is no connection. */
const elapsedS = () => Math.max(0, (lostSince ?? Date.now()) - receivedAt) / 1000;
const ageS = () => track.position.properties.age_s + elapsedS();
const freshness = () => MAX_AGES_S.find(([, maxS]) => ageS() <= maxS)[0];

/** The courier's colour. */
const colour = () => track.position && COLOURS[lostSince === null ? freshness() : "lost"];

/** Show the state, the age of the data, and what follows from it. */
function draw() {
  if (!track) return;
  setText("restaurant-name", track.restaurant.name || "The restaurant");
  $("legend").hidden = false;
  const { position } = track;
  const hasSignal = !position || freshness() !== "lost" || !MOVING_STATES.includes(track.state);
  drawState(track, hasSignal);
  drawEta(hasSignal ? track.eta : null);
  $("freshness").hidden = !position;
  if (!position) return;
  const seen = `Courier ${ageS() > 15 ? "last seen" : "seen"} ${ago(ageS())}`;
  const seenAt = `Courier's position of ${clockWithSeconds(receivedAt - position.properties.age_s * 1000)}`;
  setText("freshness-text", lostSince === null ? seen : seenAt);
  $("freshness").style.setProperty("--color", colour());
  orderMap?.setColour(colour());
}

/** The estimate counts down while positions come; without them it stays, in grey. */
function drawEta(eta) {
  const isOld = Boolean(track.position) && ageS() > MAX_COUNTED_AGE_S;
  const beforeOldS = track.position ? MAX_COUNTED_AGE_S - track.position.properties.age_s : Infinity;
  const countedS = Math.max(0, Math.min(elapsedS(), beforeOldS));
  setText("minutes", eta ? minutes(...remainingRange(eta).map((one) => one - countedS)) : "");
  $("minutes").classList.toggle("muted", lostSince !== null || isOld);
  setText("basis", eta ? describeEta(eta) : "");
}

function drawState(track, hasSignal) {
  const reached = STEPS.findIndex(([state]) => state === track.state);
  const label = FINAL_LABELS[track.state] ?? STEPS[reached][1];
  setText("state", hasSignal ? label : NO_SIGNAL);
  $("state").classList.toggle("muted", !hasSignal);
  const title = `${$("state").textContent} · Doorstep`;
  if (document.title !== title) document.title = title;
  drawSteps(track, reached, hasSignal);
}

/** The remaining seconds at the reception: p10 and p90 of the arrival. */
function remainingRange({ seconds, arrives_at, p10_at, p90_at }) {
  return [p10_at, p90_at].map((one) => seconds + (Date.parse(one) - Date.parse(arrives_at)) / 1000);
}

function describeEta({ p10_at, p90_at, route, speeds }) {
  const [from, to] = [clock(p10_at), clock(p90_at)];
  const when = from === to ? `About ${from}` : `Between ${from} and ${to}`;
  return `${when}; an estimate ${ROUTES[route]}, ${SPEEDS[speeds]}.`;
}

let drawnSteps = "";
function drawSteps(track, reached, hasSignal) {
  const version = `${track.state} ${track.events.length} ${hasSignal}`;
  if (version === drawnSteps) return;
  drawnSteps = version;
  const latest = new Map(track.events.map((event) => [event.state, event]));
  const steps = STEPS.map(([state, label], n) => {
    const event = latest.get(state);
    const isDone = reached >= 0 ? n <= reached : Boolean(event);
    const isCurrent = n === reached;
    const kinds = [isDone && "done", isCurrent && "current", isCurrent && !hasSignal && "uncertain"];
    const text = isCurrent && !hasSignal ? `${label} (last known)` : label;
    return step(text, isDone ? event : null, kinds.filter(Boolean).join(" "));
  });
  if (reached < 0) {
    const end = latest.get(track.state) ?? { occurred_at: Date.now() };
    steps.length = Math.max(1, steps.findIndex((one) => !one.classList.contains("done")));
    steps.push(step(FINAL_LABELS[track.state], end, "done current ended"));
  }
  $("steps").replaceChildren(...steps);
}

function step(label, event, kind) {
  const current = kind.includes("current") ? "step" : null;
  const time = event ? clock(event.occurred_at) : "";
  return el("li", { class: kind, "aria-current": current }, el("span", {}, label), el("time", {}, time));
}

/** Set a text if it differs: screen readers announce changes only. */
function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

setText("number", orderId.slice(0, 8));
$("restaurant-dot").style.setProperty("--color", RESTAURANT_COLOUR);
$("door-dot").style.setProperty("--color", DOOR_COLOUR);
$("retry").addEventListener("click", () => location.reload());
addEventListener("hashchange", () => location.reload());
setInterval(draw, 1000);
stream.follow(openSession).catch((error) => {
  if (error !== LINK_NOT_FOUND) throw error;
  showLinkEnded();
});
