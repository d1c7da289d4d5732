// The fleet's page: every driver live from the stream, orders that need somebody, the past.
import { ask, authorization, every, watchTheDoor } from "./fleet/asking.js";
import { Detail } from "./fleet/detail.js";
import { Orders } from "./fleet/orders.js";
import { Past } from "./fleet/past.js";
import { Points } from "./fleet/points.js";
import { makeSwitches, Roster } from "./fleet/roster.js";
import { makeSearch } from "./fleet/search.js";
import { Stream } from "./fleet/stream.js";
import { crowdLayers, FLEET_TILES, tileSource, trackLayer } from "./fleet/layers.js";
import { NavigationControl, OurMap, pointOf, pointsOf, RESTAURANT, wayLayers, wayOf } from "./map.js";
import { Offline } from "./offline.js";
import { loadOutline, outlineLayers, OUTLINE_BOUNDS } from "./outline.js";
import { DRIVER_STATES, el, FETCHED_STATES } from "./words.js";

const $ = (id) => document.getElementById(id);
// Drivers that are followed one by one; more come as tiles. A weak machine may ask for fewer.
const MOST = Number(new URLSearchParams(location.search).get("most")) || 12_000;
const ROOM = 0.2; // of a viewport around it, so that not each step of the map asks again
const GLIDE_AT_LEAST_MS = 1000;
const TILES_EVERY_MS = 5000;
const GONE_COLOUR = "#8a8f98";

const roster = new Roster();
let restaurants = new Map();
let restaurantsHidden = false;
let chosenDriver = null;
let chosenOrder = null;
let box = null; // the viewport that is followed; null: everywhere
let tiled = false; // too many in view: drawn from tiles

const ours = new OurMap(
  "map",
  (theme) => ({
    sources: ["outline", "restaurants", "track", "way"],
    others: { fleet: tileSource(roster.query()) },
    layers: [
      ...outlineLayers(theme),
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
      trackLayer(theme),
      ...wayLayers(theme),
      ...crowdLayers(theme, tiled && !roster.showsNobody),
    ],
  }),
  {
    maxBounds: OUTLINE_BOUNDS,
    transformRequest: (url) =>
      url.includes(FLEET_TILES) ? { url, headers: { Authorization: authorization() } } : { url },
  },
);
const { map } = ours;
loadOutline(ours);
map.addControl(new NavigationControl({ showCompass: false }), "top-right");
const points = new Points(map);

// What the stream tells

const stream = new Stream({ hear, say: sayPulse });
watchTheDoor(() => stream.follow(address()));
const showCounts = makeSwitches(roster, () => {
  redraw();
  refreshTiles(true);
});

function address() {
  return `/fleet/stream?most=${MOST}${box ? `&bbox=${box.join(",")}` : ""}`;
}

const offline = new Offline($("offline"));

function sayPulse(word) {
  offline.live(word === "live");
  if ($("pulse").textContent !== word) $("pulse").textContent = word;
  $("pulse").classList.toggle("late", word !== "live");
}

function hear(kind, frame) {
  globalThis.doorstepFleet.frames += 1;
  const { rows, gone, everything } = roster.take(kind, frame);
  showCounts();
  if (frame.clusters && !box) return follow(viewBox(ROOM)); // too many everywhere: here, then
  if (box && roster.counts && roster.counts.all.drivers <= MOST * 0.9) return follow(null);
  if (Boolean(frame.clusters) !== tiled) {
    tiled = Boolean(frame.clusters);
    refreshTiles(true);
  }
  if (past.isOpen) return;
  if (everything) {
    redraw();
    globalThis.doorstepFleet.first ??= points.keys.length;
    return;
  }
  for (const id of gone) points.remove(id);
  for (const row of rows) drawDriver(row, true);
  drawWay();
}

function follow(wanted) {
  box = wanted;
  stream.follow(address());
}

function viewBox(room = 0) {
  const view = map.getBounds();
  const [wide, high] = [view.getEast() - view.getWest(), view.getNorth() - view.getSouth()];
  return [
    Math.max(-180, view.getWest() - wide * room),
    Math.max(-90, view.getSouth() - high * room),
    Math.min(180, view.getEast() + wide * room),
    Math.min(90, view.getNorth() + high * room),
  ].map((degrees) => Number(degrees.toFixed(6)));
}

map.on("moveend", () => {
  if (!box) return;
  const [west, south, east, north] = viewBox();
  const outside = west < box[0] || south < box[1] || east > box[2] || north > box[3];
  const muchSmaller = (east - west) * 4 < box[2] - box[0];
  if (outside || muchSmaller) follow(viewBox(ROOM));
});

// Drawing

const shownAt = new Map(); // driver_id: fix_at_ms of the place that is drawn

function drawDriver(row, glides) {
  const of = roster.columns;
  const id = row[of.driver_id];
  const presence = roster.presenceOf(row);
  if (!roster.isShown(row, presence)) {
    points.remove(id);
    return;
  }
  const fixAt = row[of.fix_at_ms];
  const overMs = glides ? Math.max(GLIDE_AT_LEAST_MS, fixAt - (shownAt.get(id) ?? fixAt)) : 0;
  const dim = presence === "silent" || presence === "lost";
  const colour = DRIVER_STATES[row[of.state]]?.[1] ?? GONE_COLOUR;
  if (shownAt.get(id) === fixAt && points.index.has(id)) {
    points.look(id, colour, dim); // it may be on its way
  } else {
    points.set(id, row[of.lon_deg], row[of.lat_deg], colour, dim, overMs);
  }
  shownAt.set(id, fixAt);
}

function redraw() {
  if (past.isOpen) return;
  points.clear();
  shownAt.clear();
  for (const row of roster.rows.values()) drawDriver(row, false);
  points.choose(chosenDriver);
  drawWay();
}
setInterval(() => {
  // presence changes by itself
  if (past.isOpen) return;
  for (const row of roster.rows.values()) drawDriver(row, false);
}, 10_000);

let tileQuery = "";
function refreshTiles(changed = false) {
  if (!map.getLayer("crowd")) return; // the style is still to come, and asks us
  if (changed) {
    for (const { id } of crowdLayers("light", true)) {
      const shows = tiled && !roster.showsNobody && !past.isOpen;
      map.setLayoutProperty(id, "visibility", shows ? "visible" : "none");
    }
  }
  if (tileQuery !== roster.query()) {
    tileQuery = roster.query();
    map.getSource("fleet").setTiles(tileSource(tileQuery).tiles);
  } else if (tiled && !past.isOpen) {
    map.refreshTiles("fleet");
  }
}
setInterval(() => refreshTiles(), TILES_EVERY_MS);

function drawRestaurants() {
  const shown = restaurantsHidden ? [] : [...restaurants.values()];
  ours.show("restaurants", pointsOf(shown.map((one) => pointOf([one.lon_deg, one.lat_deg], {}))));
  restaurantSwitch.lastChild.textContent = restaurants.size;
}

function nameOf(restaurantId) {
  return restaurants.get(restaurantId)?.name || `restaurant ${restaurantId}`;
}

function placeOf(restaurantId) {
  const found = restaurants.get(restaurantId);
  return found && [found.lon_deg, found.lat_deg];
}

/** The chosen order's way, from where its driver is. Each time the whole map is drawn again. */
let wayIsDrawn = false;
function drawWay() {
  const order = past.isOpen ? null : orders.get(chosenOrder);
  if (!order && !wayIsDrawn) return;
  wayIsDrawn = Boolean(order);
  if (!order) return ours.show("way", pointsOf([]));
  const way = wayOf({
    courier: order.driver_id && points.placeOf(order.driver_id),
    restaurant: placeOf(order.restaurant_id),
    restaurantName: nameOf(order.restaurant_id),
    door: [order.destination.lon_deg, order.destination.lat_deg],
    doorName: "Door",
    fetched: FETCHED_STATES.includes(order.state),
  });
  ours.show("way", way);
}

function drawTrack(line) {
  const geometry = { type: "LineString", coordinates: line };
  const features = line.length > 1 ? [{ type: "Feature", geometry, properties: {} }] : [];
  ours.show("track", pointsOf(features));
}

// Choosing

const orders = new Orders({ nameOf, placeOf, choose });
const detail = new Detail({
  roster,
  drawTrack: (line) => past.isOpen || drawTrack(line),
  openPast: (driverId) => past.open(driverId),
  close: () => choose(null, null),
  seen: (driver) => {
    // In tiles nobody has a name; the chosen one is drawn above them.
    if (!tiled || !driver.position || past.isOpen) return;
    const [lon, lat] = driver.position.geometry.coordinates;
    points.set(driver.driver_id, lon, lat, DRIVER_STATES[driver.state][1], false, 2000);
  },
});
const past = new Past({
  draw: (places) => {
    if (!places) {
      refreshTiles(true);
      redraw();
      return detail.refresh().catch(() => {});
    }
    if (points.isLive) {
      points.clear();
      refreshTiles(true);
      drawWay();
    }
    drawPast(places);
  },
  drawTrack,
  viewBox,
});
makeSearch(choose);

function drawPast(places) {
  const here = new Set(places.map(([id]) => id));
  for (const id of [...points.keys]) if (!here.has(id)) points.remove(id);
  for (const [id, lon, lat] of places) {
    points.set(id, lon, lat, DRIVER_STATES.to_customer[1], false);
  }
  points.isLive = false;
  points.choose(chosenDriver);
}

/** Look at a driver, an order, or both; `place`: where, for somebody outside the followed view. */
function choose(driverId, orderId, place = null) {
  const row = roster.get(driverId);
  if (chosenDriver !== driverId && tiled) points.remove(chosenDriver);
  chosenDriver = driverId;
  chosenOrder = orderId ?? row?.order_id ?? null;
  orders.show(chosenOrder);
  detail.show(driverId);
  past.offer(driverId);
  points.choose(driverId);
  const order = orders.get(chosenOrder);
  const waitsAt = order && !order.driver_id ? placeOf(order.restaurant_id) : null;
  const center = row ? [row.lon_deg, row.lat_deg] : (place ?? waitsAt);
  if (center && (orderId || place)) map.easeTo({ center });
  drawWay();
}

map.on("click", (event) => {
  const id = points.near(event.point);
  if (id) return choose(id, null);
  const crowd = tiled ? map.queryRenderedFeatures(event.point, { layers: ["crowd"] }) : [];
  const driverId = crowd[0]?.properties.driver_id;
  if (crowd.length && !driverId) return map.easeTo({ center: event.lngLat, zoom: map.getZoom() + 2 });
  choose(driverId ?? null, null);
});
map.on("mousemove", (event) => {
  map.getCanvas().style.cursor = points.near(event.point) ? "pointer" : "";
});

const restaurantSwitch = el(
  "button",
  { type: "button", "aria-pressed": "true", color: RESTAURANT },
  el("span", { class: "dot tiny" }),
  "Restaurants",
  " ",
  el("b", {}, "0"),
);
restaurantSwitch.addEventListener("click", () => {
  restaurantsHidden = !restaurantsHidden;
  restaurantSwitch.setAttribute("aria-pressed", String(!restaurantsHidden));
  drawRestaurants();
});
$("legend").append(restaurantSwitch);

globalThis.doorstepFleet = {
  // for the console and the browser tests
  frames: 0,
  first: null, // how many drivers the first frame, what was saved last, has shown
  get drawMs() {
    return points.tookMs;
  },
  get pictures() {
    return points.pictures;
  },
  get drawn() {
    return points.drawn;
  },
  get known() {
    return points.keys.length;
  },
  get tiled() {
    return tiled;
  },
  placeOf: (id) => points.placeOf(id),
  drawNow: () => points.drawNow(),
};

every(3000, async () => {
  await orders.refresh();
  drawWay();
});
every(2000, () => detail.refresh());
every(5000, async () => {
  if (restaurants.size) return;
  const found = (await ask("/restaurants")).restaurants;
  restaurants = new Map(found.map((one) => [one.restaurant_id, one]));
  drawRestaurants();
  orders.draw();
});
