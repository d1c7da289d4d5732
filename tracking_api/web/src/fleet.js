// The fleet's map: every driver's newest position once a second, orders every three.
import {
  Glide,
  NavigationControl,
  OurMap,
  pointOf,
  pointsOf,
  RESTAURANT,
  wayLayers,
  wayOf,
} from "./map.js";
import {
  ACTIVE_STATES,
  ago,
  DRIVER_STATES,
  el,
  FETCHED_STATES,
  lasting,
  ORDER_STATES,
  WAITING_STATES,
} from "./words.js";

const TOKEN = "doorstep-staff-token"; // its name in sessionStorage: gone with the tab
const PAGE = 500; // orders in one answer
const $ = (id) => document.getElementById(id);

const hidden = new Set(); // what is switched off in the legend
const expanded = new Set(); // the lists of orders shown in full
let columns = {};
let drivers = []; // the last answer's rows
let waiting = { orders: [], more: false }; // no driver yet, the oldest first
let active = { orders: [], more: false }; // by state
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
        "circle-color": RESTAURANT,
        "circle-opacity": 0.6,
      },
    },
    ...wayLayers(theme).slice(0, -1),
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
    wayLayers(theme).at(-1), // the names, above the drivers
  ],
}));
ours.map.addControl(new NavigationControl({ showCompass: false }), "top-right");
const glide = new Glide((points) => {
  ours.show("drivers", points);
  drawWay(points);
});

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

/** Orders in these states, the oldest first; those with a driver by state before that. */
async function askOrders(states, pages) {
  const query = `/orders?${states.map((state) => `state=${state}`).join("&")}&limit=${PAGE}`;
  let answer = await ask(query);
  const { orders } = answer;
  while (answer.next_cursor && --pages > 0) {
    answer = await ask(`${query}&cursor=${encodeURIComponent(answer.next_cursor)}`);
    orders.push(...answer.orders);
  }
  const rank = (order) => (order.driver_id ? states.indexOf(order.state) : 0);
  const age = (order) => Date.parse(order.created_at);
  orders.sort((a, b) => rank(a) - rank(b) || age(a) - age(b));
  return { orders, more: Boolean(answer.next_cursor) };
}

every(1000, async () => {
  const answer = await ask("/drivers/positions");
  columns = Object.fromEntries(answer.columns.map((name, n) => [name, n]));
  drivers = answer.drivers;
  heardAt = answer.at_ms;
  drawDrivers();
});
every(3000, async () => {
  // The answers begin with the newest, and dispatch needs the oldest that wait: so all of those.
  [waiting, active] = await Promise.all([
    askOrders(WAITING_STATES, 4),
    askOrders(ACTIVE_STATES, 1),
  ]);
  drawOrders();
});
every(2000, async () => {
  if (chosenDriver) drawDetail(await ask(`/drivers/${encodeURIComponent(chosenDriver)}`));
});
every(5000, async () => {
  if (restaurants.size) return;
  const found = (await ask("/restaurants")).restaurants;
  restaurants = new Map(found.map((one) => [one.restaurant_id, one]));
  drawRestaurants();
  drawOrders();
});
setInterval(() => {
  const silent = heardAt && Date.now() - heardAt > 5000;
  $("pulse").textContent = heardAt ? (silent ? "no answer" : "live") : "";
  $("pulse").classList.toggle("late", Boolean(silent));
}, 1000);

// Drawing

const legend = new Map();
const entries = [...Object.entries(DRIVER_STATES), ["restaurants", ["Restaurants", RESTAURANT]]];
for (const [state, [word, colour]] of entries) {
  const count = el("b", {}, "0");
  const button = el(
    "button",
    { type: "button", "aria-pressed": "true", color: colour, onclick: () => toggle(state) },
    el("span", { class: state === "restaurants" ? "dot tiny" : "dot" }),
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
  drawRestaurants();
}

function drawRestaurants() {
  const shown = hidden.has("restaurants") ? [] : [...restaurants.values()];
  ours.show("restaurants", pointsOf(shown.map((one) => pointOf([one.lon_deg, one.lat_deg], {}))));
  legend.get("restaurants").count.textContent = restaurants.size;
}

function nameOf(restaurantId) {
  return restaurants.get(restaurantId)?.name || `restaurant ${restaurantId}`;
}

function drawDrivers() {
  const counts = new Map();
  const shown = [];
  for (const row of drivers) {
    const state = row[columns.state];
    counts.set(state, (counts.get(state) ?? 0) + 1);
    if (hidden.has(state)) continue;
    const id = row[columns.driver_id];
    if (id === chosenDriver) chosenOrder = row[columns.order_id];
    shown.push([
      id,
      [row[columns.lon_deg], row[columns.lat_deg]],
      { state, chosen: id === chosenDriver, old: heardAt - row[columns.fix_at_ms] > 300_000 },
    ]);
  }
  for (const state of Object.keys(DRIVER_STATES)) {
    legend.get(state).count.textContent = counts.get(state) ?? 0;
  }
  $("drivers-count").textContent = drivers.length;
  glide.update(shown);
}

function drawOrders() {
  const focused = document.activeElement?.id;
  const now = Date.now();
  $("orders").replaceChildren(
    ...ordersOf("Waiting for a courier", waiting, 5, (order) => {
      return `waits ${lasting((now - Date.parse(order.created_at)) / 1000)}`;
    }),
    ...ordersOf("Under way", active, 50, (order) => {
      return `${order.driver_id} · ${ago((now - Date.parse(order.created_at)) / 1000)}`;
    }),
  );
  if (focused) $(focused)?.focus();
}

function ordersOf(title, { orders, more }, few, tell) {
  const shown = expanded.has(title) ? orders : orders.slice(0, few);
  const rest = orders.length - shown.length;
  const items = shown.map((order) => {
    const [word, colour] = ORDER_STATES[order.state];
    const button = el(
      "button",
      {
        type: "button",
        id: `order-${order.order_id}`,
        class: order.order_id === chosenOrder ? "chosen" : "",
        onclick: () => choose(order.driver_id, order.order_id),
      },
      el("span", {}, nameOf(order.restaurant_id)),
      el("span", { class: "pill", color: colour }, word),
      el("span", { class: "soft small mono" }, order.order_id.slice(0, 8)),
      el("span", { class: "soft small" }, tell(order)),
    );
    return el("li", {}, button);
  });
  const turn = () => {
    if (!expanded.delete(title)) expanded.add(title);
    drawOrders();
  };
  const id = `more-${title}`;
  return [
    el("h2", {}, el("b", {}, `${orders.length}${more ? "+" : ""}`), ` ${title}`),
    el("ol", {}, ...items),
    orders.length > few
      ? el("button", { type: "button", id, class: "more", onclick: turn }, rest ? `${rest} more` : "Fewer")
      : "",
  ];
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
  const from = !row && waiting.orders.find((one) => one.order_id === orderId);
  const place = from && restaurants.get(from.restaurant_id);
  if (place) ours.map.easeTo({ center: [place.lon_deg, place.lat_deg] });
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

/** The chosen order's way, from where its driver has glided to. */
function drawWay(points) {
  const order = [...waiting.orders, ...active.orders].find((one) => one.order_id === chosenOrder);
  if (!order) return ours.show("way", pointsOf([]));
  const from = restaurants.get(order.restaurant_id);
  const driver = points.features.find((one) => one.properties.key === order.driver_id);
  const way = wayOf({
    courier: driver?.geometry.coordinates,
    restaurant: from && [from.lon_deg, from.lat_deg],
    restaurantName: nameOf(order.restaurant_id),
    door: [order.destination.lon_deg, order.destination.lat_deg],
    doorName: "Door",
    fetched: FETCHED_STATES.includes(order.state),
  });
  ours.show("way", way);
}
