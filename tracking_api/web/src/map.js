// The Florence map, shared by both pages: offline tiles, light or dark, and gliding points.
import maplibregl from "maplibre-gl/dist/maplibre-gl-csp.js";
import { Protocol } from "pmtiles";
import baseLayers from "protomaps-themes-base";

maplibregl.setWorkerUrl("/assets/maplibre-gl-csp-worker.js");
maplibregl.addProtocol("pmtiles", new Protocol().tile);

const dark = matchMedia("(prefers-color-scheme: dark)");
const FLORENCE = { center: [11.2558, 43.7731], zoom: 13 };
const BOUNDS = [11.154, 43.727, 11.329, 43.833]; // what the tiles cover

export const { LngLatBounds, NavigationControl } = maplibregl;

export function pointsOf(features) {
  return { type: "FeatureCollection", features };
}

export function pointOf(lonLat, properties) {
  return { type: "Feature", geometry: { type: "Point", coordinates: lonLat }, properties };
}

/** A map whose own `sources` and `layers` survive a change between light and dark. */
export class OurMap {
  constructor(container, overlays, options = {}) {
    this.overlays = overlays; // (theme) => ({ sources: [name], layers: [layer] })
    this.data = new Map();
    this.map = new maplibregl.Map({
      container,
      style: this.#style(),
      ...FLORENCE,
      maxBounds: [BOUNDS[0] - 0.08, BOUNDS[1] - 0.06, BOUNDS[2] + 0.08, BOUNDS[3] + 0.06],
      maxZoom: 18,
      attributionControl: { compact: false },
      dragRotate: false,
      pitchWithRotate: false,
      ...options,
    });
    this.map.touchZoomRotate.disableRotation();
    globalThis.doorstepMap = this.map; // for the console and the browser tests
    dark.addEventListener("change", () => this.map.setStyle(this.#style()));
  }

  /** Show this GeoJSON in one of our sources, now or as soon as the style is there. */
  show(name, geojson) {
    this.data.set(name, geojson);
    this.map.getSource(name)?.setData(geojson);
  }

  #style() {
    const theme = dark.matches ? "dark" : "light";
    const { sources, layers } = this.overlays(theme);
    const ours = Object.fromEntries(
      sources.map((name) => [
        name,
        { type: "geojson", data: this.data.get(name) ?? pointsOf([]) },
      ]),
    );
    return {
      version: 8,
      sources: {
        protomaps: {
          type: "vector",
          url: `pmtiles://${location.origin}/tiles/firenze.pmtiles`,
          attribution: "© OpenStreetMap contributors",
        },
        ...ours,
      },
      layers: [...groundLayers(theme), ...layers],
    };
  }
}

// Where the extract ends, the tiles hold a mask; flat buildings are quicker than the theme's blocks.
const BEYOND = { light: "#dde6e3", dark: "#0d0d0f" };

function groundLayers(theme) {
  return baseLayers("protomaps", theme).map((layer) => {
    if (layer.id === "background") return { ...layer, paint: { "background-color": BEYOND[theme] } };
    if (layer.id === "mask") return { ...layer, paint: { "fill-color": BEYOND[theme] } };
    if (layer.type === "fill-extrusion") {
      const { "fill-extrusion-color": colour, "fill-extrusion-opacity": opacity } = layer.paint;
      return { ...layer, type: "fill", paint: { "fill-color": colour, "fill-opacity": opacity } };
    }
    return layer;
  });
}

/** Moves points to where they are next in the time until the next answer, instead of jumping. */
export class Glide {
  constructor(draw, { overMs = 1000, everyMs = 50, jumpDeg = 0.02 } = {}) {
    Object.assign(this, { draw, overMs, everyMs, jumpDeg });
    this.points = new Map(); // key: { from, to, startedAt, properties }
    this.drawnAt = 0;
    const frame = (now) => {
      if (this.running(now) && now - this.drawnAt >= this.everyMs) this.#draw(now);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  running(now) {
    return this.dirty || now - (this.changedAt ?? -Infinity) <= this.overMs + this.everyMs;
  }

  /** Replace everything: a list of [key, lonLat, properties]. */
  update(list) {
    const now = performance.now();
    const next = new Map();
    for (const [key, to, properties] of list) {
      const old = this.points.get(key);
      let from = old ? at(old, now, this.overMs) : to;
      const apart = Math.hypot(to[0] - from[0], to[1] - from[1]);
      if (apart > this.jumpDeg) from = to;
      next.set(key, { from, to, startedAt: now, properties });
    }
    this.points = next;
    this.changedAt = now;
    this.dirty = true;
  }

  #draw(now) {
    this.drawnAt = now;
    this.dirty = false;
    const features = [];
    for (const [key, point] of this.points) {
      const feature = pointOf(at(point, now, this.overMs), { ...point.properties, key });
      features.push(feature);
    }
    this.draw(pointsOf(features));
  }
}

function at({ from, to, startedAt }, now, overMs) {
  const part = Math.min(1, Math.max(0, (now - startedAt) / overMs));
  return [from[0] + (to[0] - from[0]) * part, from[1] + (to[1] - from[1]) * part];
}
