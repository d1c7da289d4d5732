// The fleet's map: driver markers, clusters, restaurants, a track, and the selected order's places.
import { SHOWN_STATES, UNKNOWN_SYMBOL } from "../labels.js";
import {
  BaseMap, featureCollection, NavigationControl, orderPlaces, placeLayers, pointFeature,
} from "../map.js";
import { loadOutline, OUTLINE_BOUNDS, outlineLayers } from "../outline.js";
import { wrap } from "./boxes.js";
import { clusterLayers, restaurantLayer, tileSource, trackLayer } from "./layers.js";
import { MarkerLayer } from "./marker-layer.js";

const ZOOM = 13;
const MIN_ANIMATION_MS = 1000;
const EMPTY = featureCollection([]);

/** Zooming out ends at the outlines, for a city inside them. */
function maxBoundsOf({ centre: [lon, lat] }) {
  const [west, south, east, north] = OUTLINE_BOUNDS;
  return lon > west && lon < east && lat > south && lat < north ? OUTLINE_BOUNDS : null;
}

export const symbolOf = (state) => SHOWN_STATES[state] ?? UNKNOWN_SYMBOL;

/**
 * `on` has select(driverId | null) and move(). The constructor throws where the browser has no
 * WebGL.
 */
export class FleetMap {
  #showsClusters = false;
  #tileQuery = "";
  #fixAt = new Map(); // driver_id: fix_at_ms of the position drawn
  #hasPlaces = false;
  #onPlace = null; // gets the next press

  constructor(container, city, on) {
    this.base = new BaseMap(
      container,
      city.map_url && city.name,
      (theme) => ({
        sources: ["outline", "restaurants", "track", "places"],
        others: { fleet: tileSource(this.#tileQuery) },
        layers: [
          ...outlineLayers(theme),
          restaurantLayer,
          trackLayer(theme),
          ...placeLayers(theme),
          ...clusterLayers(theme, this.#showsClusters),
        ],
      }),
      { center: city.centre, zoom: ZOOM, maxBounds: maxBoundsOf(city) },
    );
    const { map } = this.base;
    this.map = map;
    loadOutline(this.base);
    map.addControl(new NavigationControl({ showCompass: false }), "top-right");
    this.markers = new MarkerLayer(map);
    map.on("moveend", on.move);
    map.on("click", (event) => this.#click(event, on.select));
    map.on("mousemove", (event) => {
      map.getCanvas().style.cursor = this.markers.near(event.point) ? "pointer" : "";
    });
  }

  #click(event, select) {
    if (this.#onPlace) {
      const onPlace = this.#onPlace;
      this.pick(null);
      return onPlace([wrap(event.lngLat.lng), event.lngLat.lat]);
    }
    const id = this.markers.near(event.point);
    if (id) return select(id);
    const isQueryable = this.#showsClusters && this.base.isUsable;
    const [feature] = isQueryable
      ? this.map.queryRenderedFeatures(event.point, { layers: ["clusters"] })
      : [];
    const driverId = feature?.properties.driver_id;
    if (feature && !driverId) {
      return this.map.easeTo({ center: event.lngLat, zoom: this.map.getZoom() + 2 });
    }
    select(driverId ?? null);
  }

  /** Have `onPlace` get the place of the next press, instead of a selection; null ends that. */
  pick(onPlace) {
    this.#onPlace = onPlace;
    document.body.classList.toggle("is-picking", Boolean(onPlace));
  }

  /** The box in view, enlarged by a share of its size on each side: west, south, east, north. */
  viewBox(margin = 0) {
    const view = this.map.getBounds();
    const width = (view.getEast() - view.getWest()) * margin;
    const height = (view.getNorth() - view.getSouth()) * margin;
    return [
      view.getWest() - width,
      Math.max(-90, view.getSouth() - height),
      view.getEast() + width,
      Math.min(90, view.getNorth() + height),
    ];
  }

  /** Show another city. */
  setCity(city) {
    this.map.setMaxBounds(null);
    this.base.setCity(city.map_url && city.name);
    this.map.jumpTo({ center: city.centre, zoom: ZOOM });
    this.map.setMaxBounds(maxBoundsOf(city));
  }

  /** Draw a driver's live position; animated, the marker moves as long as the driver did. */
  drawDriver({ driver_id, state, fix_at_ms, lon_deg, lat_deg, heading_deg }, isDim, isAnimated) {
    const before = this.#fixAt.get(driver_id);
    const symbol = symbolOf(state);
    if (before === fix_at_ms && this.markers.index.has(driver_id)) {
      this.markers.setSymbol(driver_id, symbol, isDim); // the marker may be moving
    } else {
      const moveMs = Math.max(MIN_ANIMATION_MS, fix_at_ms - (before ?? fix_at_ms));
      this.markers.set(driver_id, lon_deg, lat_deg, symbol, isDim, isAnimated ? moveMs : 0, heading_deg);
    }
    this.#fixAt.set(driver_id, fix_at_ms);
  }

  removeDriver(driverId) {
    this.markers.remove(driverId);
  }

  clearDrivers() {
    this.markers.clear();
    this.#fixAt.clear();
  }

  /** Draw past positions, [[driver_id, lon, lat, symbol]], in place of the live ones. */
  drawPast(positions) {
    const ids = new Set(positions.map(([id]) => id));
    for (const id of [...this.markers.keys]) if (!ids.has(id)) this.markers.remove(id);
    for (const [id, lon, lat, symbol] of positions) this.markers.set(id, lon, lat, symbol, false);
  }

  select(driverId) {
    this.markers.select(driverId);
  }

  centerOn(lonLat) {
    this.map.easeTo({ center: lonLat });
  }

  /** Show or hide the clusters, and apply the filters of the tiles. */
  setClusters(isVisible, query) {
    this.#showsClusters = isVisible;
    const isChanged = this.#tileQuery !== query;
    this.#tileQuery = query;
    if (!this.base.isUsable || !this.map.getLayer("clusters")) return; // applied with the style
    for (const { id } of clusterLayers("light", true)) {
      this.map.setLayoutProperty(id, "visibility", isVisible ? "visible" : "none");
    }
    if (isChanged) this.map.getSource("fleet").setTiles(tileSource(query).tiles);
  }

  refreshClusters() {
    const isReady = this.#showsClusters && this.base.isUsable;
    if (isReady && this.map.getSource("fleet")) this.map.refreshTiles("fleet");
  }

  drawRestaurants(restaurants) {
    const points = restaurants.map((one) => pointFeature([one.lon_deg, one.lat_deg], {}));
    this.base.show("restaurants", featureCollection(points));
  }

  drawTrack(line) {
    const geometry = { type: "LineString", coordinates: line };
    const features = line.length > 1 ? [{ type: "Feature", geometry, properties: {} }] : [];
    this.base.show("track", featureCollection(features));
  }

  /** Draw the selected order's restaurant and door; null removes them. */
  drawPlaces(places) {
    if (!places && !this.#hasPlaces) return;
    this.#hasPlaces = Boolean(places);
    this.base.show("places", places ? orderPlaces(places) : EMPTY);
  }
}

/** Stands in for the map in a browser without WebGL: the lists work, nothing is drawn. */
export class NoMap {
  markers = null;

  viewBox() {
    return [-180, -90, 180, 90];
  }

  drawDriver() {}
  removeDriver() {}
  clearDrivers() {}
  pick() {}
  drawPast() {}
  select() {}
  centerOn() {}
  setCity() {}
  setClusters() {}
  refreshClusters() {}
  drawRestaurants() {}
  drawTrack() {}
  drawPlaces() {}
}
