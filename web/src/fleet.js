// The fleet's page: live drivers, open orders with their commands, search, and playback.
import { every, getJson, startSession } from "./api.js";
import { ConnectionBanner } from "./connection-banner.js";
import { requestBox } from "./fleet/boxes.js";
import { selectCity } from "./fleet/cities.js";
import { DriverPanel } from "./fleet/driver-panel.js";
import { createFilters, FleetIndex } from "./fleet/fleet-index.js";
import { FleetMap, NoMap } from "./fleet/fleet-map.js";
import { FleetStream } from "./fleet/fleet-stream.js";
import { OrderList } from "./fleet/orders.js";
import { Playback } from "./fleet/playback.js";
import { createSearch } from "./fleet/search.js";
import { symbolElement } from "./fleet/symbols.js";
import { el } from "./elements.js";
import { PAST_SYMBOL, RESTAURANT_COLOUR } from "./labels.js";

const $ = (id) => document.getElementById(id);
// Drivers streamed one by one; a larger fleet is drawn from tiles. Slow machines may use fewer.
const MAX_DRIVERS = Number(new URLSearchParams(location.search).get("most")) || 12_000;
const VIEW_MARGIN = 0.2; // of the view, so that a small move needs no new stream
const TILES_REFRESH_MS = 5000;
const PRESENCE_REFRESH_MS = 10_000;

const index = new FleetIndex();
const banner = new ConnectionBanner($("connection-banner"));
let isConnected = null; // null: not yet known
let restaurants = new Map();
let showsRestaurants = true;
let selectedDriver = null;
let selectedOrder = null;
let box = null; // the streamed view; null: everywhere
let isTiled = false; // too many drivers in view: drawn from tiles

const stream = new FleetStream({ onFrame, onConnection });
const city = await selectCity((chosen) => fleetMap.setCity(chosen));
startSession(() => followView());
const fleetMap = openMap();
const updateCounts = createFilters(index, () => {
  redraw();
  updateClusters();
});

function openMap() {
  const on = { select: (driverId) => select(driverId, null), move: onMapMove };
  try {
    return new FleetMap("map", city, on);
  } catch {
    document.body.classList.add("no-map");
    $("no-map").hidden = false;
    return new NoMap();
  }
}

// The stream

function followView() {
  stream.follow(`/fleet/stream?most=${MAX_DRIVERS}${box ? `&bbox=${requestBox(box)}` : ""}`);
}

function setBox(newBox) {
  box = newBox;
  followView();
}

function onConnection(lostSinceMs) {
  banner.update(lostSinceMs);
  isConnected = lostSinceMs === null;
  drawStatus();
}

/** The header: what is shown is live, past, or not up to date. */
function drawStatus() {
  const live = isConnected === null ? "" : isConnected ? "live" : "reconnecting";
  const text = playback.isOpen ? "past" : live;
  if ($("connection").textContent !== text) $("connection").textContent = text;
  $("connection").classList.toggle("disconnected", text === "reconnecting");
  document.body.classList.toggle("is-past", playback.isOpen);
}

function onFrame(kind, frame) {
  globalThis.doorstepFleet.frames += 1;
  const { rows, gone, isSnapshot } = index.apply(kind, frame);
  updateCounts();
  if (frame.clusters && !box && fleetMap.markers) return setBox(fleetMap.viewBox(VIEW_MARGIN));
  if (box && index.counts && index.counts.all.drivers <= MAX_DRIVERS * 0.9) return setBox(null);
  if (Boolean(frame.clusters) !== isTiled) {
    isTiled = Boolean(frame.clusters);
    updateClusters();
  }
  if (playback.isOpen) return;
  if (isSnapshot) {
    redraw();
    globalThis.doorstepFleet.first ??= fleetMap.markers?.keys.length ?? 0;
    return;
  }
  for (const id of gone) fleetMap.removeDriver(id);
  for (const row of rows) drawDriver(row, true);
  drawPlaces();
}

function onMapMove() {
  if (!box) return;
  const [west, south, east, north] = fleetMap.viewBox();
  const isOutside = west < box[0] || south < box[1] || east > box[2] || north > box[3];
  const isMuchSmaller = (east - west) * 4 < box[2] - box[0];
  if (isOutside || isMuchSmaller) setBox(fleetMap.viewBox(VIEW_MARGIN));
}

// Drawing

function drawDriver(row, isAnimated) {
  const column = index.columns;
  const presence = index.presenceOf(row);
  if (!index.isShown(row, presence)) return fleetMap.removeDriver(row[column.driver_id]);
  const driver = {
    driver_id: row[column.driver_id],
    state: row[column.state],
    fix_at_ms: row[column.fix_at_ms],
    lon_deg: row[column.lon_deg],
    lat_deg: row[column.lat_deg],
    heading_deg: presence === "stationary" ? null : row[column.heading_deg],
  };
  fleetMap.drawDriver(driver, presence === "silent" || presence === "lost", isAnimated);
}

function redraw() {
  if (playback.isOpen) return;
  fleetMap.clearDrivers();
  for (const row of index.rows.values()) drawDriver(row, false);
  fleetMap.select(selectedDriver);
  drawPlaces();
}
setInterval(() => {
  if (playback.isOpen) return;
  for (const row of index.rows.values()) drawDriver(row, false); // presence depends on the time
}, PRESENCE_REFRESH_MS);

function updateClusters() {
  fleetMap.setClusters(isTiled && !index.isEmpty && !playback.isOpen, index.query());
}
setInterval(() => fleetMap.refreshClusters(), TILES_REFRESH_MS);

function drawRestaurants() {
  fleetMap.drawRestaurants(showsRestaurants ? [...restaurants.values()] : []);
  restaurantButton.lastChild.textContent = restaurants.size;
}

function nameOf(restaurantId) {
  return restaurants.get(restaurantId)?.name || `restaurant ${restaurantId}`;
}

function placeOf(restaurantId) {
  const restaurant = restaurants.get(restaurantId);
  return restaurant && [restaurant.lon_deg, restaurant.lat_deg];
}

/** The selected order's places. */
function drawPlaces() {
  const order = playback.isOpen ? null : orders.get(selectedOrder);
  if (!order) return fleetMap.drawPlaces(null);
  fleetMap.drawPlaces({
    restaurant: placeOf(order.restaurant_id),
    restaurantName: nameOf(order.restaurant_id),
    door: [order.destination.lon_deg, order.destination.lat_deg],
    doorName: "Door",
  });
}

// Selection

const orders = new OrderList({ nameOf, placeOf, select });
const driverPanel = new DriverPanel({
  index,
  drawTrack: (line) => playback.isOpen || fleetMap.drawTrack(line),
  openPlayback: (driverId) => playback.open(driverId),
  close: () => select(null, null),
  onDriver({ driver_id, state, position }) {
    // Tiles contain no ids; the selected driver is drawn above them.
    if (!isTiled || !position || playback.isOpen) return;
    const [lon_deg, lat_deg] = position.geometry.coordinates;
    const fix_at_ms = Date.parse(position.properties.fix_at);
    const { heading_deg } = position.properties;
    fleetMap.drawDriver({ driver_id, state, fix_at_ms, lon_deg, lat_deg, heading_deg }, false, true);
  },
});
const playback = new Playback({
  draw: (positions) => {
    $("past-count").textContent = positions.length;
    fleetMap.drawPast(positions);
    fleetMap.select(selectedDriver);
  },
  drawTrack: (line) => fleetMap.drawTrack(line),
  viewBox: () => fleetMap.viewBox(),
  onOpenChange: () => {
    $("live-legend").hidden = playback.isOpen;
    $("past-legend").hidden = !playback.isOpen;
    $("past-count").textContent = 0;
    drawStatus();
    fleetMap.clearDrivers();
    updateClusters();
    redraw();
    drawPlaces();
    if (!playback.isOpen) driverPanel.refresh().catch(() => {}); // retried by the poll
  },
});
$("past-legend").append(symbolElement(PAST_SYMBOL), PAST_SYMBOL.label, " ", el("b", { id: "past-count" }, "0"));
createSearch({
  selectDriver: (found) =>
    select(found.driver_id, found.order_id, found.lon_deg === null ? null : [found.lon_deg, found.lat_deg]),
  selectOrder: (found) =>
    selectOrder(found).catch(() => ($("command-error").textContent = "No response; try again.")),
});

/** Select an order that was found, open or not. The courier of an ended one is elsewhere by now: not selected. */
async function selectOrder(found) {
  const { order_id, driver_id, ended_at, destination } = await orders.load(found);
  if (ended_at) select(null, order_id, [destination.lon_deg, destination.lat_deg]);
  else select(driver_id, order_id);
}

/** Select a driver, an order, or both; `place` is the driver's where it is not streamed. */
function select(driverId, orderId, place = null) {
  const driver = index.get(driverId);
  if (selectedDriver !== driverId && isTiled) fleetMap.removeDriver(selectedDriver);
  selectedDriver = driverId;
  selectedOrder = orderId ?? driver?.order_id ?? null;
  orders.show(selectedOrder);
  driverPanel.show(driverId);
  playback.offerDriver(driverId);
  fleetMap.select(driverId);
  const order = orders.get(selectedOrder);
  const pickUpPlace = order && !order.driver_id ? placeOf(order.restaurant_id) : null;
  const center = driver ? [driver.lon_deg, driver.lat_deg] : (place ?? pickUpPlace);
  if (center && (orderId || place)) fleetMap.centerOn(center);
  drawPlaces();
  $("selection").scrollTop = 0;
}

const restaurantButton = el(
  "button",
  { type: "button", "aria-pressed": "true", color: RESTAURANT_COLOUR },
  el("span", { class: "dot small-dot" }),
  "Restaurants",
  " ",
  el("b", {}, "0"),
);
restaurantButton.addEventListener("click", () => {
  showsRestaurants = !showsRestaurants;
  restaurantButton.setAttribute("aria-pressed", String(showsRestaurants));
  drawRestaurants();
});
$("states").append(restaurantButton);

globalThis.doorstepFleet = {
  // for the console and the browser tests
  frames: 0,
  first: null, // the number of markers after the first snapshot
  get drawMs() {
    return fleetMap.markers?.drawMs;
  },
  get redraws() {
    return fleetMap.markers?.redraws;
  },
  get drawn() {
    return fleetMap.markers?.drawn;
  },
  get known() {
    return fleetMap.markers?.keys.length;
  },
  get isTiled() {
    return isTiled;
  },
  placeOf: (id) => fleetMap.markers?.placeOf(id),
  directionOf: (id) => fleetMap.markers?.symbols[fleetMap.markers.index.get(id)]?.direction,
  symbolOf: (id) => fleetMap.markers?.symbols[fleetMap.markers.index.get(id)]?.symbol,
  drawNow: () => fleetMap.markers?.drawNow(),
};

every(3000, async () => {
  await orders.refresh();
  drawPlaces();
});
every(2000, () => driverPanel.refresh());
every(5000, async () => {
  if (restaurants.size) return;
  const answer = (await getJson("/restaurants")).restaurants;
  restaurants = new Map(answer.map((one) => [one.restaurant_id, one]));
  drawRestaurants();
  orders.draw();
});
