// The fleet's map: every driver's newest position once a second, orders every three.
import { Glide, NavigationControl, OurMap, pointOf, pointsOf } from "./map.js";
import { ago, DRIVER_STATES, el, OPEN_ORDER_STATES, ORDER_STATES } from "./words.js";

const TOKEN = "doorstep-staff-token"; // its name in sessionStorage: gone with the tab
const SHOWN_ORDERS = 200;
const $ = (id) => document.getElementById(id);

const hidden = new Set(); // driver states switched off in the legend
let columns = {};
let drivers = []; // the last answer's rows
let orders = [];
let restaurants = new Map();
let chosenDriver = null;
let chosenOrder = null;
let heardAt = 0;

const colours = ["match", ["get", "state"]];
for (const [state, [, colour]] of Object.entries(DRIVER_STATES)) colours.push(state, colour);
colours.push("#8a8f98");

const ours = new OurMap("map", (theme) => ({
  sources: ["restaurants", "way", "drivers"],
  layers: [
    {
      id: "restaurants",
      type: "circle",
      source: "restaurants",
      minzoom: 12,
      paint: {
        "circle-radius": ["interpolate", ["linear"], ["zoom"], 12, 1.5, 16, 4],
        "circle-color": theme === "dark" ? "#d59a6a" : "#9a5b2b",
        "circle-opacity": 0.45,
      },
    },
    {
      id: "way",
      type: "line",
      source: "way",
      filter: ["==", ["geometry-type"], "LineString"],
      layout: { "line-cap": "round" },
      paint: { "line-color": "#2f6fed", "line-width": 2.5, "line-dasharray": [1, 2] },
    },
    {
      id: "way-ends",
      type: "circle",
      source: "way",
      filter: ["==", ["geometry-type"], "Point"],
      paint: {
        "circle-radius": 7,
        "circle-color": ["get", "colour"],
        "circle-stroke-color": "#fff",
        "circle-stroke-width": 2.5,
      },
    },
    {
      id: "drivers",
      type: "circle",
      source: "drivers",
      paint: {
        "circle-radius": ["interpolate", ["linear"], ["zoom"], 11, 4, 14, 6.5, 17, 11],
        "circle-color": colours,
        "circle-opacity": ["case", ["get", "old"], 0.35, 1],
        "circle-stroke-color": ["case", ["get", "chosen"], "#ff2d78", "#ffffff"],
        "circle-stroke-width": ["case", ["get", "chosen"], 4, 1.5],
        "circle-stroke-opacity": ["case", ["get", "old"], 0.5, 1],
      },
    },
  ],
}));
ours.map.addControl(new NavigationControl({ showCompass: false }), "top-right");
const glide = new Glide((points) => ours.show("drivers", points));

ours.map.on("click", (event) => {
  const [x, y] = [event.point.x, event.point.y];
  const near = [[x - 8, y - 8], [x + 8, y + 8]];
  const [hit] = ours.map.queryRenderedFeatures(near, { layers: ["drivers"] });
  choose(hit ? hit.properties.key : null, null);
});
ours.map.on("mousemove", "drivers", () => (ours.map.getCanvas().style.cursor = "pointer"));
ours.map.on("mouseleave", "drivers", () => (ours.map.getCanvas().style.cursor = ""));

// The door: a token from the address's #token, or typed in

function openDoor(trouble = "") {
  sessionStorage.removeItem(TOKEN);
  $("trouble").textContent = trouble;
  $("door").hidden = false;
  document.querySelector("#door input").focus();
}

function adoptHash() {
  const token = decodeURIComponent(location.hash.slice(1));
  if (!token) return;
  sessionStorage.setItem(TOKEN, token);
  history.replaceState(null, "", location.pathname);
  $("door").hidden = true;
}

document.querySelector("#door form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, new FormData(event.target).get("token").trim());
  event.target.reset();
  $("door").hidden = true;
});
addEventListener("hashchange", adoptHash);
adoptHash();
if (!sessionStorage.getItem(TOKEN)) openDoor();

// Asking

class Refused extends Error {}

async function ask(path) {
  const answer = await fetch(path, {
    headers: { Authorization: `Bearer ${sessionStorage.getItem(TOKEN)}` },
    signal: AbortSignal.timeout(8000),
  });
  if (answer.status === 401 || answer.status === 403) throw new Refused("This token is not good.");
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

/** Ask again and again, a little later after each failure; the door opens when we are refused. */
async function every(ms, job) {
  let failures = 0;
  for (;;) {
    try {
      if (sessionStorage.getItem(TOKEN)) await job();
      failures = 0;
    } catch (error) {
      if (error instanceof Refused) openDoor(error.message);
      failures = Math.min(failures + 1, 5);
    }
    await new Promise((resolve) => setTimeout(resolve, ms * (1 + failures * Math.random())));
  }
}

every(1000, async () => {
  const answer = await ask("/drivers/positions");
  columns = Object.fromEntries(answer.columns.map((name, n) => [name, n]));
  drivers = answer.drivers;
  heardAt = answer.at_ms;
  drawDrivers();
});
every(3000, async () => {
  const states = OPEN_ORDER_STATES.map((state) => `state=${state}`).join("&");
  ({ orders } = await ask(`/orders?${states}&limit=${SHOWN_ORDERS}`));
  drawOrders();
});
every(2000, async () => {
  if (chosenDriver) drawDetail(await ask(`/drivers/${encodeURIComponent(chosenDriver)}`));
});
every(5000, async () => {
  if (restaurants.size) return;
  const found = (await ask("/restaurants")).restaurants;
  restaurants = new Map(found.map((one) => [one.restaurant_id, one]));
  ours.show("restaurants", pointsOf(found.map((one) => pointOf([one.lon_deg, one.lat_deg], {}))));
  drawOrders();
});
setInterval(() => {
  const silent = heardAt && Date.now() - heardAt > 5000;
  $("pulse").textContent = heardAt ? (silent ? "no answer" : "live") : "";
  $("pulse").classList.toggle("late", Boolean(silent));
}, 1000);

// Drawing

const legend = new Map();
for (const [state, [word, colour]] of Object.entries(DRIVER_STATES)) {
  const count = el("b", {}, "0");
  const button = el(
    "button",
    { type: "button", "aria-pressed": "true", color: colour, onclick: () => toggle(state) },
    el("span", { class: "dot" }),
    word,
    count,
  );
  legend.set(state, { button, count });
  $("legend").append(button);
}

function toggle(state) {
  if (!hidden.delete(state)) hidden.add(state);
  legend.get(state).button.setAttribute("aria-pressed", String(!hidden.has(state)));
  drawDrivers();
}

function drawDrivers() {
  const counts = new Map();
  const shown = [];
  for (const row of drivers) {
    const state = row[columns.state];
    counts.set(state, (counts.get(state) ?? 0) + 1);
    if (hidden.has(state)) continue;
    const id = row[columns.driver_id];
    shown.push([
      id,
      [row[columns.lon_deg], row[columns.lat_deg]],
      { state, chosen: id === chosenDriver, old: heardAt - row[columns.fix_at_ms] > 300_000 },
    ]);
  }
  for (const [state, { count }] of legend) count.textContent = counts.get(state) ?? 0;
  $("drivers-count").textContent = drivers.length;
  glide.update(shown);
  drawWay();
}

function drawOrders() {
  const more = orders.length === SHOWN_ORDERS ? "+" : "";
  $("orders-count").textContent = `${orders.length}${more}`;
  $("orders").replaceChildren(
    ...orders.map((order) => {
      const [word, colour] = ORDER_STATES[order.state];
      const from = restaurants.get(order.restaurant_id)?.name || `restaurant ${order.restaurant_id}`;
      const age = (Date.now() - Date.parse(order.created_at)) / 1000;
      return el(
        "li",
        {},
        el(
          "button",
          {
            type: "button",
            class: order.order_id === chosenOrder ? "chosen" : "",
            onclick: () => choose(order.driver_id, order.order_id),
          },
          el("span", {}, from),
          el("span", { class: "pill", color: colour }, word),
          el("span", { class: "soft small mono" }, order.order_id.slice(0, 8)),
          el("span", { class: "soft small" }, [order.driver_id, ago(age)].filter(Boolean).join(" · ")),
        ),
      );
    }),
  );
  drawWay();
}

async function choose(driverId, orderId) {
  chosenDriver = driverId;
  const row = drivers.find((one) => one[columns.driver_id] === driverId);
  chosenOrder = orderId ?? row?.[columns.order_id] ?? null;
  $("detail").hidden = !driverId;
  $("detail").replaceChildren();
  drawDrivers();
  drawOrders();
  if (row && orderId) ours.map.easeTo({ center: [row[columns.lon_deg], row[columns.lat_deg]] });
  if (driverId) {
    try {
      drawDetail(await ask(`/drivers/${encodeURIComponent(driverId)}`));
    } catch {
      /* asked again in two seconds */
    }
  }
}

function drawDetail(driver) {
  if (driver.driver_id !== chosenDriver) return;
  const [word, colour] = DRIVER_STATES[driver.state] ?? [driver.state, "#8a8f98"];
  const spot = driver.position?.properties;
  const facts = [
    ["State", el("span", { class: "pill", color: colour }, word)],
    ["Order", driver.order_id ? el("span", { class: "mono" }, driver.order_id.slice(0, 8)) : "none"],
    ["Heard", spot ? `${ago(spot.age_s)} (${spot.freshness})` : "never"],
    ["Speed", spot?.speed_mps != null ? `${(spot.speed_mps * 3.6).toFixed(0)} km/h` : "unknown"],
    ["Accuracy", spot?.accuracy_m != null ? `${spot.accuracy_m.toFixed(0)} m` : "unknown"],
    ["Battery", driver.battery != null ? `${(driver.battery * 100).toFixed(0)} %` : "unknown"],
  ];
  const title = driver.name && driver.name !== driver.driver_id
    ? `${driver.name} · ${driver.driver_id}`
    : driver.driver_id;
  $("detail").replaceChildren(
    el(
      "h2",
      {},
      el("span", {}, title),
      el("button", { type: "button", "aria-label": "Close", onclick: () => choose(null, null) }, "✕"),
    ),
    el("dl", {}, ...facts.flatMap(([name, fact]) => [el("dt", {}, name), el("dd", {}, fact)])),
  );
}

/** From the chosen order's driver over the restaurant to the customer, as the crow flies. */
function drawWay() {
  const order = orders.find((one) => one.order_id === chosenOrder);
  if (!order) return ours.show("way", pointsOf([]));
  const from = restaurants.get(order.restaurant_id);
  const row = drivers.find((one) => one[columns.driver_id] === order.driver_id);
  const restaurant = from && [from.lon_deg, from.lat_deg];
  const customer = [order.destination.lon_deg, order.destination.lat_deg];
  const driver = row && [row[columns.lon_deg], row[columns.lat_deg]];
  const fetched = ["picked_up", "arriving", "at_customer"].includes(order.state);
  const line = (fetched ? [driver, customer] : [driver, restaurant, customer]).filter(Boolean);
  const features = [pointOf(customer, { colour: "#2a9d5c" })];
  if (restaurant) features.push(pointOf(restaurant, { colour: "#c8432b" }));
  if (line.length > 1) {
    const geometry = { type: "LineString", coordinates: line };
    features.push({ type: "Feature", geometry, properties: {} });
  }
  ours.show("way", pointsOf(features));
}
