// The customer's page: trades the link's token for a cookie, then follows the order's stream.
import { Courier, courierLayers, headingImage } from "./courier.js";
import { DOOR, LngLatBounds, OurMap, RESTAURANT, wayLayers, wayOf } from "./map.js";
import { GONE, OrderStream } from "./stream.js";
import { ago, clock, el, FETCHED_STATES, minutes } from "./words.js";

const $ = (id) => document.getElementById(id);
const orderId = location.pathname.split("/").pop();
const order = `/track/${encodeURIComponent(orderId)}`;

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
const ENDS = { delivered: "Delivered", cancelled: "Cancelled", failed: "Could not be delivered" };
const FRESH = { live: "#2f6fed", recent: "#2f6fed", stale: "#b86e00", lost: "#6d747e" };
const AGES = [["live", 15], ["recent", 60], ["stale", 300], ["lost", Infinity]]; // seconds
const ROUTES = { road: "along the streets", straight_line: "from the distance" };
const SPEEDS = {
  learned: "at the pace of past rides",
  observed: "at this courier's pace",
  assumed: "at a usual pace",
};
const MISSED_S = 10; // between two positions: the way between them is asked for
const ROOM = { top: 50, right: 80, bottom: 75, left: 80 }; // below: the card's edge, the attribution

const ours = openMap();
const courier = new Courier((source, geojson) => ours?.show(source, geojson));
let track = null; // what GET /track answers, kept up to date by the stream
let heardAt = 0; // when the last position or snapshot came, on performance.now()'s clock
let framed = "";
let touched = false; // a customer who has moved the map is left alone, until they ask

const stream = new OrderStream(order, {
  snapshot(whole) {
    const before = courier.assignmentNo === whole.assignment_no ? courier.fix : null;
    draw((track = whole));
    const missed = !before || courier.fix?.at - before.at > MISSED_S * 1000;
    if (whole.position && missed) remember(whole.assignment_no);
  },
  position: (news) => draw(Object.assign(track, news)),
  order({ order_id, assignment_no, position, eta, ...event }) {
    if (track.events.some((one) => one.order_seq === event.order_seq)) return; // in the snapshot
    track.events.push(event);
    const { state, order_seq } = event;
    // What may be seen of the courier comes with the newest event.
    const seen = position === undefined ? {} : { position, eta };
    draw(Object.assign(track, { state, order_seq, assignment_no }, seen));
  },
  trouble: (isThere) => put("trouble", isThere ? "No answer at the moment; trying again…" : ""),
});
globalThis.doorstepEvents = stream.ids; // for the console and the browser tests

/** The map; null where the browser can't draw one: the rest of the page does without. */
function openMap() {
  const overlays = (theme) => ({
    sources: ["way", "trail", "courier"],
    layers: [...wayLayers(theme).filter(({ id }) => id !== "way"), ...courierLayers(theme)],
  });
  let opened;
  try {
    opened = new OurMap("map", overlays);
  } catch {
    document.body.classList.add("no-map");
    return null;
  }
  opened.map.on("styleimagemissing", ({ id }) => {
    if (id === "heading") opened.map.addImage(id, headingImage(), { pixelRatio: 2 });
  });
  opened.map.on("movestart", (event) => {
    touched ||= Boolean(event.originalEvent);
    $("recentre").hidden = !touched;
  });
  return opened;
}

async function openSession() {
  const token = decodeURIComponent(location.hash.slice(1));
  if (!token) return;
  const answer = await fetch(`${order}/session`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
  if (answer.status === 429 || answer.status >= 500) throw new Error(`${answer.status}`);
  // The token leaves the address bar, so that a screenshot or the history does not pass it on.
  if (answer.ok) history.replaceState(null, "", location.pathname);
}

function gone() {
  $("gone").hidden = false;
  $("card").inert = $("stage").inert = true;
  $("again").focus();
}

function draw(track) {
  const reached = STEPS.findIndex(([state]) => state === track.state);
  put("state", ENDS[track.state] ?? STEPS[reached][1]);
  document.title = `${$("state").textContent} · Doorstep`;
  drawSteps(track, reached);
  put("from", track.restaurant.name || "The restaurant");
  $("places").hidden = false;
  heardAt = performance.now();
  drawCourier(track);
  tell();
  frame();
}

function drawCourier({ position, assignment_no, state }) {
  const fetched = FETCHED_STATES.includes(state);
  courier.ahead = fetched ? [doorOf(track)] : [restaurantOf(track), doorOf(track)];
  courier.update(position, FRESH[position?.properties.freshness], assignment_no);
  const named = { restaurantName: track.restaurant.name || "The restaurant", doorName: "Your door" };
  ours?.show(
    "way",
    wayOf({ restaurant: restaurantOf(track), door: doorOf(track), fetched: true, ...named }),
  );
}

/** Ask for the way so far: what a page that is opened, or comes back, has not seen. */
async function remember(assignmentNo) {
  const known = courier.pointsKnown;
  const answer = await fetch(`${order}/history`).catch(() => null);
  if (!answer?.ok) return; // the way begins here, then
  const [line] = (await answer.json()).features;
  const isLine = line?.geometry.type === "LineString";
  const isOurs = courier.fix && courier.assignmentNo === assignmentNo;
  if (isLine && isOurs) courier.remember(line.geometry.coordinates, known);
}

/** Say how old what is shown is, and what it means for the arrival; it grows older by itself. */
function tell() {
  const elapsed = (performance.now() - heardAt) / 1000;
  const eta = track?.eta;
  const facts = track?.position?.properties;
  const age = facts ? facts.age_s + elapsed : 0;
  const [freshness] = AGES.find(([, within]) => age <= within);
  put("minutes", eta ? minutes(...bandOf(eta).map((one) => one - elapsed)) : "");
  $("minutes").classList.toggle("soft", freshness === "stale" || freshness === "lost");
  put("basis", eta ? basisOf(eta) : "");
  $("fresh").hidden = !facts;
  if (!facts) return;
  put("fresh-text", `Courier ${age > 15 ? "last seen" : "seen"} ${ago(age)}`);
  $("fresh").style.setProperty("--color", FRESH[freshness]);
  courier.paint(FRESH[freshness]);
}

/** Seconds from when it came: four of five arrivals lie between. */
function bandOf({ seconds, arrives_at, p10_at, p90_at }) {
  return [p10_at, p90_at].map((one) => seconds + (Date.parse(one) - Date.parse(arrives_at)) / 1000);
}

function basisOf({ p10_at, p90_at, route, speeds }) {
  const [from, to] = [clock(p10_at), clock(p90_at)];
  const when = from === to ? `About ${from}` : `Between ${from} and ${to}`;
  return `${when}; an estimate ${ROUTES[route]}, ${SPEEDS[speeds]}.`;
}

const restaurantOf = ({ restaurant }) => [restaurant.lon_deg, restaurant.lat_deg];
const doorOf = ({ destination }) => [destination.lon_deg, destination.lat_deg];

function drawSteps(track, reached) {
  const latest = new Map(track.events.map((event) => [event.state, event]));
  const steps = STEPS.map(([state, word], n) => {
    const event = latest.get(state);
    const done = reached >= 0 ? n <= reached : Boolean(event);
    const kind = [done && "done", n === reached && "now"].filter(Boolean).join(" ");
    return step(word, done ? event : null, kind);
  });
  if (reached < 0) {
    const end = latest.get(track.state) ?? { occurred_at: Date.now() };
    steps.length = Math.max(1, steps.findIndex((one) => !one.classList.contains("done")));
    steps.push(step(ENDS[track.state], end, "done now ended"));
  }
  $("steps").replaceChildren(...steps);
}

function step(word, event, kind) {
  const current = kind.includes("now") ? "step" : null;
  const time = event ? clock(event.occurred_at) : "";
  return el("li", { class: kind, "aria-current": current }, el("span", {}, word), el("time", {}, time));
}

/** Keep the courier and where they are going in view, and closer as they come closer. */
function frame() {
  if (!ours || !track) return;
  const there = track.position?.geometry.coordinates;
  const fetched = FETCHED_STATES.includes(track.state);
  const bounds = new LngLatBounds(doorOf(track), doorOf(track));
  if (!fetched || !there) bounds.extend(restaurantOf(track));
  if (there) bounds.extend(there);
  const view = { padding: ROOM, maxZoom: 16 };
  const stage = `${fetched}${Boolean(there)}`;
  const closer = (ours.map.cameraForBounds(bounds, view)?.zoom ?? 0) - ours.map.getZoom();
  if (stage === framed && (touched || !there || (inside(there) && closer < 1))) return;
  framed = stage;
  ours.map.fitBounds(bounds, { ...view, duration: 600 });
}

function inside(lonLat) {
  const { x, y } = ours.map.project(lonLat);
  const { clientWidth, clientHeight } = ours.map.getContainer();
  return x > 30 && y > 30 && x < clientWidth - 30 && y < clientHeight - 55;
}

/** Set a text, if it is another: a screen reader hears of changes only. */
function put(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

put("number", orderId.slice(0, 8));
$("from-dot").style.setProperty("--color", RESTAURANT);
$("door-dot").style.setProperty("--color", DOOR);
$("again").addEventListener("click", () => location.reload());
$("recentre").addEventListener("click", () => {
  touched = false;
  framed = "";
  $("recentre").hidden = true;
  frame();
});
addEventListener("hashchange", () => location.reload());
setInterval(tell, 1000);
stream.follow(openSession).catch((error) => {
  if (error !== GONE) throw error;
  gone();
});
