// The customer's page: exchanges the link's token for a cookie, then follows the order's stream.
import { Courier, courierLayers, headingImage } from "./courier.js";
import { ago, clock, clockWithSeconds, el, minutes, noConnection, PICKED_UP_STATES } from "./labels.js";
import {
  BaseMap, DOOR_COLOUR, LngLatBounds, orderPlaces, placeLayers, RESTAURANT_COLOUR,
} from "./map.js";
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
const ROUTES = { road: "along the streets", straight_line: "from the distance" };
const SPEEDS = {
  learned: "at the pace of past rides",
  observed: "at this courier's pace",
  assumed: "at a usual pace",
};
const MAX_GAP_S = 10; // between two positions; over it the trail is fetched
const PADDING = { top: 50, right: 80, bottom: 75, left: 80 }; // below: the card's edge, the attribution

const baseMap = openMap();
const courier = new Courier((source, geojson) => baseMap?.show(source, geojson));
let track = null; // the answer of GET /track, kept up to date by the stream
let receivedAt = 0; // of the last position or snapshot
let lostSince = null; // while there is no connection: the instant of the last data
let framedStage = "";
let isMapMoved = false; // by the customer: the map no longer follows the courier

const stream = new OrderStream(orderPath, {
  snapshot(newTrack) {
    const before = courier.assignmentNo === newTrack.assignment_no ? courier.fix : null;
    draw((track = newTrack));
    const isGap = !before || courier.fix?.at - before.at > MAX_GAP_S * 1000;
    if (newTrack.position && isGap) loadTrail(newTrack.assignment_no);
  },
  position: (update) => draw(Object.assign(track, update)),
  order({ order_id, assignment_no, position, eta, ...event }) {
    if (track.events.some((one) => one.order_seq === event.order_seq)) return; // in the snapshot
    track.events.push(event);
    const { state, order_seq } = event;
    const visible = position === undefined ? {} : { position, eta }; // with the newest event only
    draw(Object.assign(track, { state, order_seq, assignment_no }, visible));
  },
  connection(since) {
    lostSince = since;
    setText("connection", since === null ? "" : noConnection(since));
    drawFreshness();
  },
});
globalThis.doorstepEvents = stream.ids; // for the console and the browser tests

/** The map; null where the browser cannot draw one. The page works without it. */
function openMap() {
  const overlays = (theme) => ({
    sources: ["places", "trail", "courier"],
    layers: [...placeLayers(theme), ...courierLayers(theme)],
  });
  let opened;
  try {
    opened = new BaseMap("map", overlays);
  } catch {
    document.body.classList.add("no-map");
    return null;
  }
  opened.map.on("styleimagemissing", ({ id }) => {
    if (id === "heading") opened.map.addImage(id, headingImage(), { pixelRatio: 2 });
  });
  opened.map.on("movestart", (event) => {
    isMapMoved ||= Boolean(event.originalEvent);
    $("recentre").hidden = !isMapMoved;
  });
  return opened;
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

function draw(track) {
  setText("restaurant-name", track.restaurant.name || "The restaurant");
  $("legend").hidden = false;
  receivedAt = Date.now();
  drawCourier(track);
  drawFreshness();
  followCourier();
}

function drawCourier({ position, assignment_no }) {
  courier.update(position, COLOURS[position?.properties.freshness], assignment_no);
  const restaurantName = track.restaurant.name || "The restaurant";
  const places = { restaurant: restaurantOf(track), door: doorOf(track), restaurantName };
  baseMap?.show("places", orderPlaces({ ...places, doorName: "Your door" }));
}

/** Fetch the trail: the positions from before the page was opened, or from an interruption. */
async function loadTrail(assignmentNo) {
  const known = courier.trailLength;
  const response = await fetch(`${orderPath}/history`).catch(() => null);
  if (!response?.ok) return; // the trail starts here
  const [line] = (await response.json()).features;
  const isLine = line?.geometry.type === "LineString";
  const isCurrent = courier.fix && courier.assignmentNo === assignmentNo;
  if (isLine && isCurrent) courier.prependTrail(line.geometry.coordinates, known);
}

/** Show the age of the data and what follows from it. Frozen while there is no connection. */
function drawFreshness() {
  if (!track) return;
  const elapsedS = Math.max(0, (lostSince ?? Date.now()) - receivedAt) / 1000;
  const isConnected = lostSince === null;
  const { eta, state } = track;
  const fix = track.position?.properties;
  const ageS = fix ? fix.age_s + elapsedS : 0;
  const [freshness] = MAX_AGES_S.find(([, maxS]) => ageS <= maxS);
  const hasSignal = !fix || freshness !== "lost" || !MOVING_STATES.includes(state);
  const isUncertain = !isConnected || !hasSignal || freshness === "stale" || freshness === "lost";
  drawState(track, hasSignal);
  setText("minutes", eta && hasSignal ? minutes(...remainingRange(eta).map((one) => one - elapsedS)) : "");
  $("minutes").classList.toggle("muted", isUncertain);
  setText("basis", eta && hasSignal ? describeEta(eta) : "");
  $("freshness").hidden = !fix;
  if (!fix) return;
  const seen = `Courier ${ageS > 15 ? "last seen" : "seen"} ${ago(ageS)}`;
  const seenAt = `Courier's position of ${clockWithSeconds(receivedAt - fix.age_s * 1000)}`;
  setText("freshness-text", isConnected ? seen : seenAt);
  const colour = COLOURS[isConnected ? freshness : "lost"];
  $("freshness").style.setProperty("--color", colour);
  courier.setColour(colour);
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

const restaurantOf = ({ restaurant }) => [restaurant.lon_deg, restaurant.lat_deg];
const doorOf = ({ destination }) => [destination.lon_deg, destination.lat_deg];

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

/** Keep the courier and the destination in view, closer as the courier approaches. */
function followCourier() {
  if (!baseMap?.isUsable || !track) return;
  const place = track.position?.geometry.coordinates;
  const isPickedUp = PICKED_UP_STATES.includes(track.state);
  const bounds = new LngLatBounds(doorOf(track), doorOf(track));
  if (!isPickedUp || !place) bounds.extend(restaurantOf(track));
  if (place) bounds.extend(place);
  const view = { padding: PADDING, maxZoom: 16 };
  const stage = `${isPickedUp}${Boolean(place)}`;
  const zoomGain = (baseMap.map.cameraForBounds(bounds, view)?.zoom ?? 0) - baseMap.map.getZoom();
  if (stage === framedStage && (isMapMoved || !place || (isInView(place) && zoomGain < 1))) return;
  framedStage = stage;
  baseMap.map.fitBounds(bounds, { ...view, duration: 600 });
}

function isInView(lonLat) {
  const { x, y } = baseMap.map.project(lonLat);
  const { clientWidth, clientHeight } = baseMap.map.getContainer();
  return x > 30 && y > 30 && x < clientWidth - 30 && y < clientHeight - 55;
}

/** Set a text if it differs: screen readers announce changes only. */
function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

setText("number", orderId.slice(0, 8));
$("restaurant-dot").style.setProperty("--color", RESTAURANT_COLOUR);
$("door-dot").style.setProperty("--color", DOOR_COLOUR);
$("retry").addEventListener("click", () => location.reload());
$("recentre").addEventListener("click", () => {
  isMapMoved = false;
  framedStage = "";
  $("recentre").hidden = true;
  followCourier();
});
addEventListener("hashchange", () => location.reload());
setInterval(drawFreshness, 1000);
stream.follow(openSession).catch((error) => {
  if (error !== LINK_NOT_FOUND) throw error;
  showLinkEnded();
});
