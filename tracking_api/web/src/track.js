// The customer's page: trades the link's token for a cookie, then asks once a second.
import { DOOR, Glide, LngLatBounds, OurMap, RESTAURANT, wayLayers, wayOf } from "./map.js";
import { ago, clock, el, FETCHED_STATES } from "./words.js";

const $ = (id) => document.getElementById(id);
const orderId = location.pathname.split("/").pop();
const order = `/track/${encodeURIComponent(orderId)}`;
const LOOK_ON_MS = 60_000; // after the end: the page shows what was last known

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
let shown = null; // the last answer
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
  let endedAt = 0;
  let opened = false;
  for (;;) {
    try {
      if (!opened) {
        await openSession();
        opened = true;
      }
      const answer = await fetch(order, { signal: AbortSignal.timeout(8000) });
      if (answer.status === 404) return gone();
      if (!answer.ok) throw new Error(`${answer.status}`);
      const track = await answer.json();
      draw(track);
      failures = 0;
      if (track.state in ENDS) endedAt ||= Date.now();
      if (endedAt && Date.now() - endedAt > LOOK_ON_MS) return;
    } catch {
      failures = Math.min(failures + 1, 6);
      if (failures > 2) say("No answer at the moment; trying again…", "#c8432b");
    }
    const wait = 1000 * 2 ** failures * (failures ? 0.5 + Math.random() : 1);
    await new Promise((resolve) => setTimeout(resolve, Math.min(wait, 15_000)));
  }
}

function gone() {
  $("gone").hidden = false;
}

function draw(track) {
  const reached = STEPS.findIndex(([state]) => state === track.state);
  $("state").textContent = ENDS[track.state] ?? STEPS[reached][1];
  document.title = `${$("state").textContent} · Doorstep`;
  $("minutes").textContent = track.eta ? minutes(track.eta.seconds) : "";
  $("basis").textContent = track.eta
    ? `About ${clock(track.eta.arrives_at)}; estimated from ${track.eta.basis}.`
    : "";
  drawSteps(track, reached);
  $("from").textContent = track.restaurant.name || "The restaurant";
  $("places").hidden = false;

  shown = track;
  const courier = track.position?.geometry.coordinates;
  const facts = track.position?.properties;
  glide.update(courier ? [["courier", courier, { colour: FRESH[facts.freshness] }]] : []);
  if (facts) {
    say(`Courier seen ${ago(facts.age_s)}`, FRESH[facts.freshness]);
  } else {
    $("fresh").hidden = true;
  }
  frame(track, courier);
}

const restaurantOf = ({ restaurant }) => [restaurant.lon_deg, restaurant.lat_deg];
const doorOf = ({ destination }) => [destination.lon_deg, destination.lat_deg];

function drawWay(courier) {
  const way = wayOf({
    courier,
    restaurant: restaurantOf(shown),
    restaurantName: shown.restaurant.name || "The restaurant",
    door: doorOf(shown),
    doorName: "Your door",
    fetched: !courier || FETCHED_STATES.includes(shown.state), // no line without a courier
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
follow();
