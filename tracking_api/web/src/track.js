// The customer's page: trades the link's token for a cookie, then asks once a second.
import { Glide, LngLatBounds, OurMap, pointOf, pointsOf } from "./map.js";
import { ago, clock, el } from "./words.js";

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
const FRESH = { live: "#2a9d5c", recent: "#2a9d5c", stale: "#e08a00", lost: "#c8432b" };

const ours = new OurMap(
  "map",
  () => ({
    sources: ["places", "accuracy", "courier"],
    layers: [
      {
        id: "places",
        type: "circle",
        source: "places",
        paint: {
          "circle-radius": 9,
          "circle-color": ["get", "colour"],
          "circle-stroke-color": "#fff",
          "circle-stroke-width": 3,
        },
      },
      {
        id: "halo",
        type: "circle",
        source: "courier",
        paint: { "circle-radius": 20, "circle-color": "#2f6fed", "circle-opacity": 0.18 },
      },
      {
        id: "courier",
        type: "circle",
        source: "courier",
        paint: {
          "circle-radius": 10,
          "circle-color": ["case", ["get", "old"], "#8a8f98", "#2f6fed"],
          "circle-stroke-color": "#fff",
          "circle-stroke-width": 3.5,
        },
      },
    ],
  }),
  { interactive: true },
);
const glide = new Glide((points) => ours.show("courier", points));
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
  $("from-dot").style.setProperty("--color", "#c8432b");

  const restaurant = [track.restaurant.lon_deg, track.restaurant.lat_deg];
  const home = [track.destination.lon_deg, track.destination.lat_deg];
  ours.show(
    "places",
    pointsOf([pointOf(restaurant, { colour: "#c8432b" }), pointOf(home, { colour: "#2a9d5c" })]),
  );
  const courier = track.position?.geometry.coordinates;
  const facts = track.position?.properties;
  glide.update(courier ? [["courier", courier, { old: facts.freshness === "lost" }]] : []);
  if (facts) {
    say(`Courier seen ${ago(facts.age_s)}`, FRESH[facts.freshness]);
  } else {
    $("fresh").hidden = true;
  }
  frame(track, restaurant, home, courier);
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

/** Keep the courier and where they are going in view. */
function frame(track, restaurant, home, courier) {
  const fetched = ["picked_up", "arriving", "at_customer", "delivered"].includes(track.state);
  const stage = `${fetched}${Boolean(courier)}`;
  if (stage === framed && (touched || !courier || inside(courier))) return;
  framed = stage;
  const bounds = new LngLatBounds(home, home);
  if (!fetched || !courier) bounds.extend(restaurant);
  if (courier) bounds.extend(courier);
  ours.map.fitBounds(bounds, { padding: 60, maxZoom: 16, duration: 600 });
}

function inside(lonLat) {
  const { x, y } = ours.map.project(lonLat);
  const { clientWidth, clientHeight } = ours.map.getContainer();
  return x > 30 && y > 30 && x < clientWidth - 30 && y < clientHeight - 30;
}

function say(text, colour) {
  $("fresh").hidden = false;
  $("fresh-text").textContent = text;
  $("fresh").style.setProperty("--color", colour);
}

function minutes(seconds) {
  return seconds < 60 ? "< 1 min" : `${Math.round(seconds / 60)} min`;
}

addEventListener("hashchange", () => location.reload());
follow();
