// The dispatcher's page: the queue, the map, the detail; past positions in their place.
import { every, getJson, startSession } from "./api.js";
import { ConnectionBanner } from "./connection-banner.js";
import { el } from "./elements.js";
import { chosenInAddress, nameInAddress } from "./fleet/address.js";
import { AlertTray } from "./fleet/alerts.js";
import { requestBox } from "./fleet/boxes.js";
import { selectCity } from "./fleet/cities.js";
import { consoleOf } from "./fleet/console.js";
import { drawDriverList } from "./fleet/driver-list.js";
import { DriverPanel } from "./fleet/driver-panel.js";
import { createFilters, FleetIndex } from "./fleet/fleet-index.js";
import { FleetMap, NoMap } from "./fleet/fleet-map.js";
import { FleetStream } from "./fleet/fleet-stream.js";
import { NewOrderForm } from "./fleet/new-order.js";
import { mayCommand, setRole } from "./fleet/rights.js";
import { OpenOrders } from "./fleet/open-orders.js";
import { OrderPanel } from "./fleet/order-panel.js";
import { PastStates, pastSymbolOf } from "./fleet/past-states.js";
import { Playback } from "./fleet/playback.js";
import { OrderQueue } from "./fleet/queue.js";
import { OpenReturns } from "./fleet/returns.js";
import { createSearch } from "./fleet/search.js";
import { installShortcuts } from "./fleet/shortcuts.js";
import { installTabs, showTab } from "./fleet/tabs.js";
import { say, translatePage } from "./fleet/texts.js";
import { RESTAURANT_COLOUR, shownState } from "./labels.js";
import { dateAndTime } from "./times.js";

const $ = (id) => document.getElementById(id);
// Drivers streamed one by one; a larger fleet is drawn from tiles. Slow machines may use fewer.
const MAX_DRIVERS = Number(new URLSearchParams(location.search).get("most")) || 12_000;
const VIEW_MARGIN = 0.2; // of the view, so that a small move needs no new stream
const TILES_REFRESH_MS = 5000;
const PRESENCE_REFRESH_MS = 10_000;

translatePage();
installTabs();
const index = new FleetIndex();
const openOrders = new OpenOrders();
const pastStates = new PastStates();
const banner = new ConnectionBanner($("connection-banner"));
let isConnected = null; // null: not yet known
let restaurants = new Map();
let showsRestaurants = true;
let selectedDriver = null;
let selectedOrder = null;
let box = null; // the streamed view; null: everywhere
let isTiled = false; // too many drivers in view: drawn from tiles
let formPlaces = null; // of the new order

const stream = new FleetStream({ onFrame, onConnection });
let city = null;
city = await selectCity((chosen) => {
  city = chosen;
  fleetMap.setCity(chosen);
});
startSession(() => followView(), ({ role }) => {
  setRole(role);
  $("new-order-button").hidden = !mayCommand();
  orderPanel.redraw();
});
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
    $("no-map").hidden = $("driver-list").hidden = false;
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
  const status = playback.isOpen ? "past" : live;
  const text = status && say(status);
  if ($("connection").textContent !== text) $("connection").textContent = text;
  $("connection").classList.toggle("disconnected", status === "reconnecting");
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
    state: index.stateOf(row),
    fix_at_ms: row[column.fix_at_ms],
    lon_deg: row[column.lon_deg],
    lat_deg: row[column.lat_deg],
    heading_deg: presence === "stationary" ? null : row[column.heading_deg],
  };
  fleetMap.drawDriver(driver, presence === "silent" || presence === "lost", isAnimated);
}

function redraw() {
  if (playback.isOpen) return;
  if (!fleetMap.markers) return drawDriverList($("driver-list"), index, (id) => select(id, null));
  fleetMap.clearDrivers();
  for (const row of index.rows.values()) drawDriver(row, false);
  fleetMap.select(selectedDriver);
  drawPlaces();
}
setInterval(() => {
  if (playback.isOpen) return;
  if (!fleetMap.markers) return redraw();
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
  return restaurants.get(restaurantId)?.name || say("restaurant {}", restaurantId);
}

function placeOf(restaurantId) {
  const restaurant = restaurants.get(restaurantId);
  return restaurant && [restaurant.lon_deg, restaurant.lat_deg];
}

/** The places of the new or the selected order. */
function drawPlaces() {
  if (playback.isOpen) return fleetMap.drawPlaces(null);
  if (newOrder.isOpen) return fleetMap.drawPlaces(formPlaces);
  const order = openOrders.get(selectedOrder);
  if (!order) return fleetMap.drawPlaces(null);
  fleetMap.drawPlaces({
    restaurant: placeOf(order.restaurant_id),
    restaurantName: nameOf(order.restaurant_id),
    door: [order.destination.lon_deg, order.destination.lat_deg],
    doorName: order.address ?? say("Door"),
  });
}

// Selection

function notify(notice = "", error = "") {
  $("notice").textContent = notice;
  $("command-error").textContent = error;
}

const openOrder = (order) => select(order.driver_id, order.order_id);
const queue = new OrderQueue({ openOrders, nameOf, select: openOrder });
const orderPanel = new OrderPanel({
  openOrders,
  nameOf,
  notify,
  close: () => select(null, null),
  open: (found) => findOrder(found),
  onChange: async (order) => {
    if (order) openOrders.update(order);
    if (order && order.order_id === selectedOrder) select(order.driver_id, order.order_id, { keepsNotice: true });
    await refreshOrders().catch(() => {}); // polled in any case
  },
});
const driverPanel = new DriverPanel({
  index,
  notify,
  drawTrack: (line) => playback.isOpen || fleetMap.drawTrack(line),
  openPlayback: (driverId) => playback.open(driverId),
  close: () => select(null, null),
  selectOrder: (found) => findOrder(found),
  onDriver({ driver_id, state, is_returning, position }) {
    // Tiles contain no ids; the selected driver is drawn above them.
    if (!isTiled || !position || playback.isOpen) return;
    const [lon_deg, lat_deg] = position.geometry.coordinates;
    const fix_at_ms = Date.parse(position.properties.fix_at);
    const { heading_deg } = position.properties;
    const shown = shownState(state, is_returning);
    fleetMap.drawDriver({ driver_id, state: shown, fix_at_ms, lon_deg, lat_deg, heading_deg }, false, true);
  },
});
const newOrder = new NewOrderForm({
  city: () => city,
  notify,
  pickOnMap: (onPlace) => {
    if (onPlace) showTab("map");
    fleetMap.pick(onPlace && ((place) => (showTab("detail"), onPlace(place))));
  },
  drawPlaces: (places) => {
    formPlaces = places;
    drawPlaces();
  },
  onCreated: async (order, link) => {
    await refreshOrders().catch(() => {}); // polled in any case
    await findOrder(order);
    notify(say("Order {} created.", order.order_id.slice(0, 8)));
    if (selectedOrder !== order.order_id) return; // another one was chosen since
    $("order-title")?.focus();
    if (link) $("customer-link")?.replaceChildren(say("The customer's link: "), el("a", { href: link }, link));
  },
  onOpenChange: () => {
    for (const id of ["order", "driver"]) $(id).classList.toggle("behind-form", newOrder.isOpen);
    $("hint").hidden = newOrder.isOpen || Boolean(selectedOrder || selectedDriver);
    drawPlaces();
    if (newOrder.isOpen) showTab("detail");
  },
});
const openForm = () => {
  if (!mayCommand()) return;
  if (playback.isOpen) playback.close();
  newOrder.open();
};
$("new-order-button").addEventListener("click", openForm);
const playback = new Playback({
  draw: (positions, at) => {
    const states = positions.map(([id]) => pastStates.at(id, at));
    pastStates.drawLegend($("past-legend"), states);
    $("past-banner").textContent = at
      ? say("Past · {} · not live", dateAndTime(at))
      : say("Past · not live");
    fleetMap.drawPast(positions.map((one, n) => [...one, pastSymbolOf(states[n])]));
    fleetMap.select(selectedDriver);
  },
  loadStates: (ids, from, to) => pastStates.load(ids, from, to).catch(() => {}), // unknown then
  drawTrack: (line) => fleetMap.drawTrack(line),
  viewBox: () => fleetMap.viewBox(),
  onOpenChange: () => {
    const { isOpen } = playback;
    document.body.classList.toggle("is-past", isOpen);
    $("live-legend").hidden = isOpen;
    $("past-legend").hidden = $("past-banner").hidden = !isOpen;
    for (const note of document.querySelectorAll(".past-note")) note.hidden = !isOpen;
    $("past-banner").textContent = say("Past · not live");
    pastStates.drawLegend($("past-legend"), []);
    if (isOpen) showTab("map");
    drawStatus();
    fleetMap.clearDrivers();
    updateClusters();
    redraw();
    drawPlaces();
    if (!isOpen) driverPanel.refresh().catch(() => {}); // retried by the poll
  },
});
const showReturning = () => (updateCounts(), redraw());
const returns = new OpenReturns({ index, openOrders, open: (order) => findOrder(order), onChange: showReturning });
const alerts = new AlertTray({
  open: (alert) => (alert.order_id ? findOrder(alert) : select(alert.driver_id, null)),
});
createSearch({
  selectDriver: (found) =>
    select(found.driver_id, found.order_id, { place: found.lon_deg === null ? null : [found.lon_deg, found.lat_deg] }),
  selectOrder: (found) => findOrder(found),
});

/** Select an order, open or not. The courier of an ended one is elsewhere by now: not selected. */
async function findOrder(found) {
  if (playback.isOpen) playback.close();
  try {
    const order = await openOrders.load(found);
    if (!order) return;
    const { order_id, driver_id, ended_at, destination } = order;
    if (ended_at) select(null, order_id, { place: [destination.lon_deg, destination.lat_deg] });
    else select(driver_id, order_id);
  } catch {
    notify("", say("No response; try again."));
  }
}

/** Select a driver, an order, or both; `place` is shown where the driver is not streamed. */
function select(driverId, orderId, { place = null, keepsNotice = false, isNamed = true } = {}) {
  const driver = index.get(driverId);
  if (!keepsNotice) {
    openOrders.dropLoad();
    notify();
  }
  if (selectedDriver !== driverId && isTiled) fleetMap.removeDriver(selectedDriver);
  selectedDriver = driverId;
  selectedOrder = orderId ?? driver?.order_id ?? null;
  if (isNamed) nameInAddress(selectedOrder, driverId);
  if ((driverId || selectedOrder) && !keepsNotice) {
    newOrder.close();
    showTab("detail");
  }
  queue.show(selectedOrder);
  orderPanel.show(selectedOrder);
  driverPanel.show(driverId);
  $("hint").hidden = newOrder.isOpen || Boolean(selectedOrder || driverId);
  playback.offerDriver(driverId);
  fleetMap.select(driverId);
  const order = openOrders.get(selectedOrder);
  const pickUpPlace = order && !order.driver_id ? placeOf(order.restaurant_id) : null;
  const center = driver ? [driver.lon_deg, driver.lat_deg] : (place ?? pickUpPlace);
  if (center && (orderId || place)) fleetMap.centerOn(center);
  drawPlaces();
  if (!keepsNotice) $("detail").scrollTop = 0;
}

function selectFromAddress() {
  const { orderId, driverId } = chosenInAddress();
  if (orderId && orderId !== selectedOrder) findOrder({ order_id: orderId });
  else if (!orderId && driverId !== selectedDriver) select(driverId, null, { isNamed: false });
}
addEventListener("popstate", selectFromAddress);

// The keyboard

function escape() {
  if (newOrder.isOpen) return newOrder.close();
  if (playback.isOpen) return playback.close();
  if (!selectedOrder && !selectedDriver) return;
  select(null, null);
  showTab("queue");
  queue.focus();
}

const focusOn = (tab, element) => {
  showTab(tab);
  element()?.focus();
};
installShortcuts({
  "/": ["Search", () => $("query").focus()],
  n: ["New order", openForm],
  q: ["To the queue", () => (showTab("queue"), queue.focus())],
  j: ["Next order", () => queue.step(1)],
  k: ["Previous order", () => queue.step(-1)],
  d: ["To the detail", () => focusOn("detail", () => $("order-title") ?? $("detail").querySelector("button"))],
  "1 – 8": ["Choose the courier of this rank", (key) => orderPanel.couriers.choose(Number(key))],
  a: ["To the alerts", () => (showTab("queue"), $("alerts").hidden || alerts.focus())],
  m: ["To the map", () => focusOn("map", () => document.querySelector("#map canvas") ?? $("driver-list").querySelector("button"))],
  p: ["Past or live", () => $("playback-button").click()],
  Esc: ["Close what is open", escape],
  "?": ["These keys", () => {}],
});

const restaurantButton = el(
  "button",
  { type: "button", "aria-pressed": "true", color: RESTAURANT_COLOUR },
  el("span", { class: "dot small-dot" }),
  say("Restaurants"),
  " ",
  el("b", {}, "0"),
);
restaurantButton.addEventListener("click", () => {
  showsRestaurants = !showsRestaurants;
  restaurantButton.setAttribute("aria-pressed", String(showsRestaurants));
  drawRestaurants();
});
$("states").append(restaurantButton);

globalThis.doorstepFleet = consoleOf(fleetMap, { onFrame, isTiled: () => isTiled });

async function refreshOrders() {
  returns.refresh().catch(() => {}); // again with the next one
  await openOrders.refresh();
  queue.draw();
  orderPanel.draw();
  drawPlaces();
}

every(3000, refreshOrders);
every(2000, () => driverPanel.refresh());
every(5000, () => orderPanel.refresh());
every(5000, () => alerts.refresh());
every(5000, async () => {
  if (restaurants.size) return;
  const answer = (await getJson("/restaurants")).restaurants;
  restaurants = new Map(answer.map((one) => [one.restaurant_id, one]));
  drawRestaurants();
  queue.draw();
  orderPanel.redraw();
});
selectFromAddress();
