// The customer's page: trades the link's token for a cookie, then follows the order's stream.
import { DOOR, Glide, LngLatBounds, OurMap, RESTAURANT, wayLayers, wayOf } from "./map.js";
import { ago, clock, el, FETCHED_STATES } from "./words.js";

const $ = (id) => document.getElementById(id);
const orderId = location.pathname.split("/").pop();
const order = `/track/${encodeURIComponent(orderId)}`;
const SILENT_MS = 45_000; // a courier reports every 30 s at least: the line may be dead
const SLOWEST_GLIDE_MS = 6000; // reports come every 4 s

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
const FRESH = { live: "#2f6fed", recent: "#2f6fed", stale: "#e08a00", lost: "#8a8f98" };
const AGES = [["live", 15], ["recent", 60], ["stale", 300], ["lost", Infinity]]; // seconds
const ROOM = { top: 50, right: 50, bottom: 75, left: 50 }; // below: the card's edge, the attribution

const ours = new OurMap(
  "map",
  (theme) => ({
    sources: ["way", "courier"],
    layers: [
      ...wayLayers(theme),
      {
        id: "halo",
        type: "circle",
        source: "courier",
        paint: { "circle-radius": 20, "circle-color": ["get", "colour"], "circle-opacity": 0.18 },
      },
      {
        id: "courier",
        type: "circle",
        source: "courier",
        paint: {
          "circle-radius": 10,
          "circle-color": ["get", "colour"],
          "circle-stroke-color": "#fff",
          "circle-stroke-width": 3.5,
        },
      },
    ],
  }),
  { interactive: true },
);
let track = null; // what GET /track answers, kept up to date by the stream
let heardAt = 0; // when the last position or snapshot came, on performance.now()'s clock
let lastId = ""; // of the newest event heard: where the stream goes on after a break
let trouble = ""; // what is said instead of the courier's age
globalThis.doorstepEvents = []; // the ids as they came, for the console and the browser tests
const glide = new Glide((points) => {
  ours.show("courier", points);
  drawWay(points.features[0]?.geometry.coordinates);
});
let framed = "";
let touched = false; // a customer who has moved the map is left alone
ours.map.on("movestart", (event) => (touched ||= Boolean(event.originalEvent)));

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

async function follow() {
  let failures = 0;
  let opened = false;
  const heard = () => {
    failures = 0;
    trouble = "";
  };
  for (;;) {
    try {
      if (!opened) await openSession();
      opened = true;
      if (await listen(heard)) return;
    } catch (error) {
      if (error === GONE) return gone();
      failures = Math.min(failures + 1, 6);
      trouble = failures > 1 || track ? "No answer at the moment; trying again…" : "";
      tell();
    }
    // Not all at once: a server that comes back has everybody at its door.
    const wait = 400 * 1.6 ** failures * (0.5 + Math.random());
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

const GONE = new Error("404");

/** Follow the stream until it ends (true) or falls silent (false). Throws when it breaks. */
function listen(heard) {
  const source = new EventSource(`${order}/stream${lastId ? `?last_event_id=${lastId}` : ""}`);
  return new Promise((resolve, reject) => {
    let opened = false;
    let silence;
    const on = (kind, take) =>
      source.addEventListener(kind, (message) => {
        heard();
        clearTimeout(silence);
        silence = setTimeout(() => over(resolve, false), SILENT_MS);
        if (message.lastEventId && message.lastEventId !== lastId) {
          lastId = message.lastEventId;
          globalThis.doorstepEvents.push(Number(lastId));
        }
        take(JSON.parse(message.data));
      });
    const over = (settle, outcome) => {
      clearTimeout(silence);
      source.close();
      settle(outcome);
    };
    source.addEventListener("open", () => (opened = true));
    source.addEventListener("error", async () => {
      // The browser does not tell why: a stream that never opened is asked for in another way.
      source.close();
      const answer = opened ? null : await fetch(order).catch(() => null);
      if (answer?.ok) draw((track = await answer.json()));
      if (answer?.ok && track.state in ENDS) over(resolve, true);
      else over(reject, answer?.status === 404 ? GONE : new Error("broken"));
    });
    on("resync", () => (lastId = ""));
    on("snapshot", (whole) => draw((track = whole)));
    on("position", (news) => draw(Object.assign(track, news)));
    on("order", ({ order_id, assignment_no, position, eta, ...event }) => {
      if (track.events.some((one) => one.order_seq === event.order_seq)) return; // in the snapshot
      track.events.push(event);
      const { state, order_seq } = event;
      // What may be seen of the courier comes with the newest event.
      const seen = position === undefined ? {} : { position, eta };
      Object.assign(track, { state, order_seq, assignment_no }, seen);
      draw(track);
    });
    on("end", ({ reason }) => {
      if (reason === "link_ended") over(reject, GONE);
      else over(resolve, true);
    });
  });
}

function gone() {
  $("gone").hidden = false;
}

function draw(track) {
  const reached = STEPS.findIndex(([state]) => state === track.state);
  $("state").textContent = ENDS[track.state] ?? STEPS[reached][1];
  document.title = `${$("state").textContent} · Doorstep`;
  $("basis").textContent = track.eta
    ? `About ${clock(track.eta.arrives_at)}; estimated from ${track.eta.basis}.`
    : "";
  drawSteps(track, reached);
  $("from").textContent = track.restaurant.name || "The restaurant";
  $("places").hidden = false;

  const now = performance.now();
  glide.overMs = Math.min(Math.max(now - heardAt, 500), SLOWEST_GLIDE_MS);
  heardAt = now;
  const courier = track.position?.geometry.coordinates;
  const colour = FRESH[track.position?.properties.freshness];
  glide.update(courier ? [["courier", courier, { colour }]] : []);
  tell();
  frame(track, courier);
}

/** Say how old what is shown is; it grows older by itself. */
function tell() {
  const elapsed = (performance.now() - heardAt) / 1000;
  $("minutes").textContent = track?.eta ? minutes(track.eta.seconds - elapsed) : "";
  const facts = track?.position?.properties;
  if (trouble) return say(trouble, "#c8432b");
  $("fresh").hidden = !facts;
  if (!facts) return;
  const age = facts.age_s + elapsed;
  const [freshness] = AGES.find(([, within]) => age <= within);
  say(`Courier seen ${ago(age)}`, FRESH[freshness]);
}

const restaurantOf = ({ restaurant }) => [restaurant.lon_deg, restaurant.lat_deg];
const doorOf = ({ destination }) => [destination.lon_deg, destination.lat_deg];

function drawWay(courier) {
  const way = wayOf({
    courier,
    restaurant: restaurantOf(track),
    restaurantName: track.restaurant.name || "The restaurant",
    door: doorOf(track),
    doorName: "Your door",
    fetched: !courier || FETCHED_STATES.includes(track.state), // no line without a courier
  });
  ours.show("way", way);
}

function drawSteps(track, reached) {
  const latest = new Map(track.events.map((event) => [event.state, event]));
  const steps = STEPS.map(([state, word], n) => {
    const event = latest.get(state);
    const done = reached >= 0 ? n <= reached : Boolean(event);
    const kind = [done && "done", n === reached && "now"].filter(Boolean).join(" ");
    const time = done && event ? clock(event.occurred_at) : "";
    return el("li", { class: kind }, el("span", {}, word), el("time", {}, time));
  });
  if (reached < 0) {
    const time = clock(latest.get(track.state)?.occurred_at ?? Date.now());
    steps.length = Math.max(1, steps.findIndex((step) => !step.classList.contains("done")));
    steps.push(
      el("li", { class: "done now ended" }, el("span", {}, ENDS[track.state]), el("time", {}, time)),
    );
  }
  $("steps").replaceChildren(...steps);
}

/** Keep the courier and where they are going in view, and closer as they come closer. */
function frame(track, courier) {
  const fetched = FETCHED_STATES.includes(track.state);
  const bounds = new LngLatBounds(doorOf(track), doorOf(track));
  if (!fetched || !courier) bounds.extend(restaurantOf(track));
  if (courier) bounds.extend(courier);
  const view = { padding: ROOM, maxZoom: 16 };
  const stage = `${fetched}${Boolean(courier)}`;
  const closer = (ours.map.cameraForBounds(bounds, view)?.zoom ?? 0) - ours.map.getZoom();
  if (stage === framed && (touched || !courier || (inside(courier) && closer < 1))) return;
  framed = stage;
  ours.map.fitBounds(bounds, { ...view, duration: 600 });
}

function inside(lonLat) {
  const { x, y } = ours.map.project(lonLat);
  const { clientWidth, clientHeight } = ours.map.getContainer();
  return x > 30 && y > 30 && x < clientWidth - 30 && y < clientHeight - 55;
}

function say(text, colour) {
  $("fresh").hidden = false;
  $("fresh-text").textContent = text;
  $("fresh").style.setProperty("--color", colour);
}

function minutes(seconds) {
  return seconds < 60 ? "< 1 min" : `${Math.round(seconds / 60)} min`;
}

$("number").textContent = orderId.slice(0, 8);
$("from-dot").style.setProperty("--color", RESTAURANT);
$("door-dot").style.setProperty("--color", DOOR);
addEventListener("hashchange", () => location.reload());
setInterval(tell, 1000);
follow();
