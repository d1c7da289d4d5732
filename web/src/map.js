// The map of a city, shared by the pages: offline tiles, light or dark.
import worker from "address:maplibre-worker.js";
import maplibregl from "/assets/maplibre.js";
import { Protocol } from "pmtiles";
import baseLayers from "protomaps-themes-base";
import { DOOR_COLOUR, RESTAURANT_COLOUR } from "./labels.js";
import { mapTexts } from "./map-texts.js";
import { streetTilesOf } from "./street-tiles.js";

maplibregl.setWorkerUrl(worker);
const protocol = new Protocol();
maplibregl.addProtocol("pmtiles", protocol.tile);

const dark = matchMedia("(prefers-color-scheme: dark)");
const MARGIN = [0.08, 0.06]; // degrees around a city

export const { LngLatBounds, Marker, NavigationControl } = maplibregl;

export function featureCollection(features) {
  return { type: "FeatureCollection", features };
}

export function pointFeature(lonLat, properties) {
  return { type: "Feature", geometry: { type: "Point", coordinates: lonLat }, properties };
}

/**
 * A map whose own `sources` and `layers` survive a change between light and dark, and the loss of
 * the WebGL context. `city` is a name; null draws no streets. The constructor throws where the
 * browser has no WebGL.
 */
export class BaseMap {
  #isContextLost = false;
  #tiles = null;

  constructor(container, city, overlays, options = {}) {
    this.#useTilesOf(city);
    this.overlays = overlays; // (theme) => ({ sources: [name], layers: [layer], others: {name: source} })
    this.data = new Map();
    this.map = new maplibregl.Map({
      container,
      style: this.#style(),
      maxZoom: 18,
      attributionControl: { compact: false },
      dragRotate: false,
      pitchWithRotate: false,
      locale: mapTexts(document.documentElement.lang),
      ...options,
    });
    this.map.touchZoomRotate.disableRotation();
    this.map.on("style.load", () => {
      for (const [name, geojson] of this.data) this.map.getSource(name)?.setData(geojson); // of the meantime
    });
    this.map.on("webglcontextlost", () => (this.#isContextLost = true));
    this.map.on("webglcontextrestored", () => {
      this.#isContextLost = false;
      this.map.setStyle(this.#style(), { diff: false }); // with the data of the meantime
    });
    globalThis.doorstepMap = this.map; // for the console and the browser tests
    dark.addEventListener("change", () => this.isUsable && this.map.setStyle(this.#style()));
  }

  #useTilesOf(city) {
    this.#tiles = streetTilesOf(city);
    if (this.#tiles) protocol.add(this.#tiles);
  }

  /** Draw the streets of another city. */
  setCity(city) {
    this.#useTilesOf(city);
    if (this.isUsable) this.map.setStyle(this.#style());
  }

  /** Keep the view near the tiles. */
  async limitToTiles() {
    const header = await this.#tiles?.getHeader();
    if (!header) return;
    const { minLon, minLat, maxLon, maxLat } = header;
    if (maxLon - minLon > 180) return; // across ±180°
    const [dx, dy] = MARGIN;
    this.map.setMaxBounds([minLon - dx, minLat - dy, maxLon + dx, maxLat + dy]);
  }

  /** Whether the map has its style. While the WebGL context is lost, MapLibre's methods throw. */
  get isUsable() {
    return !this.#isContextLost && Boolean(this.map.style);
  }

  /** Show GeoJSON in one of our sources, now or as soon as the map is usable. */
  show(name, geojson) {
    this.data.set(name, geojson);
    if (this.isUsable) this.map.getSource(name)?.setData(geojson);
  }

  #style() {
    const theme = dark.matches ? "dark" : "light";
    const { sources, layers, others = {} } = this.overlays(theme);
    const own = Object.fromEntries(
      sources.map((name) => [
        name,
        { type: "geojson", data: this.data.get(name) ?? featureCollection([]) },
      ]),
    );
    return {
      version: 8,
      sources: { ...(this.#tiles && { protomaps: streetSource(this.#tiles) }), ...own, ...others },
      layers: [...groundLayers(theme).filter(({ source }) => !source || this.#tiles), ...layers],
    };
  }
}

function streetSource(tiles) {
  const attribution = "© OpenStreetMap contributors";
  return { type: "vector", url: `pmtiles://${tiles.source.getKey()}`, attribution };
}

// Dark colours by layer id; the first match applies. The theme's own lack contrast.
const EARTH = { light: "#e7f1ee", dark: "#171d25" };
const DARK = [
  [/^(earth|landuse_pier|landuse_pedestrian|transit_railway_tracks)$/, EARTH.dark],
  [/^(water|physical_line_waterway)$/, "#223a55"],
  [/^(landuse_park|natural_.*)$/, "#1b3128"],
  [/^(landuse_.*|transit_runway)$/, "#1d2530"],
  [/^buildings$/, "#343e4a"],
  [/_casing$/, "#11161c"],
  [/^transit_railway$/, "#39424e"],
  [/^(roads_.*other|transit_pier)$/, "#2b343f"],
  [/^roads_.*minor$/, "#3a4653"],
  [/^roads_.*medium$/, "#43505f"],
  [/^roads_.*major$/, "#4d5b6c"],
  [/^roads_.*highway$/, "#5a6a7d"],
];

function groundLayers(theme) {
  // The mask would draw the ragged border of the extract.
  const layers = baseLayers("protomaps", theme).filter(({ id }) => id !== "mask");
  for (const layer of layers) {
    const { id, paint, layout } = layer;
    if (layer.type === "fill-extrusion") {
      // Flat buildings render faster than the theme's blocks.
      layer.type = "fill";
      layer.paint = {
        "fill-color": paint["fill-extrusion-color"],
        "fill-opacity": paint["fill-extrusion-opacity"],
      };
    }
    if (id === "background") paint["background-color"] = EARTH[theme];
    if (id === "places_city") delete layout["symbol-sort-key"]; // by a property that these tiles lack
    if (theme !== "dark") continue;
    if (layer.type === "symbol") {
      paint["text-halo-color"] = EARTH.dark;
      if (/^(roads|pois|places_sub)/.test(id)) paint["text-color"] = "#98a5b3";
    } else {
      const [, colour] = DARK.find(([names]) => names.test(id)) ?? [];
      if (colour) layer.paint[`${layer.type}-color`] = colour;
    }
  }
  return layers;
}

// An order's restaurant and door, on both pages.
export function placeLayers(theme) {
  return [
    {
      id: "places",
      type: "circle",
      source: "places",
      paint: {
        "circle-radius": 8,
        "circle-color": ["get", "colour"],
        "circle-stroke-color": "#fff",
        "circle-stroke-width": 3,
      },
    },
    {
      id: "place-names",
      type: "symbol",
      source: "places",
      layout: {
        "text-field": ["get", "name"],
        "text-font": ["NotoSans-Bold"],
        "text-size": 13,
        "text-variable-anchor": ["top", "bottom", "left", "right"],
        "text-radial-offset": 1.1,
        "text-justify": "auto",
      },
      paint: {
        "text-color": theme === "dark" ? "#fff" : "#16202c",
        "text-halo-color": theme === "dark" ? "#10151c" : "#fff",
        "text-halo-width": 2,
      },
    },
  ];
}

/** An order's places as GeoJSON; each may be unknown. */
export function orderPlaces({ restaurant, restaurantName, door, doorName }) {
  const features = [];
  if (door) features.push(pointFeature(door, { colour: DOOR_COLOUR, name: doorName }));
  if (restaurant) {
    features.push(pointFeature(restaurant, { colour: RESTAURANT_COLOUR, name: restaurantName }));
  }
  return featureCollection(features);
}
