// The map of a form: a restaurant's draggable marker, or the box of an area, drawn by dragging.
import { el } from "../labels.js";
import { BaseMap, featureCollection, Marker, NavigationControl } from "../map.js";
import { loadOutline, outlineLayers } from "../outline.js";

const COLOUR = "#2f6fed";
const PAD = { padding: 30, animate: false, maxZoom: 16 };

function baseMap(overlay) {
  const base = new BaseMap(
    "map",
    (theme) => ({ sources: ["outline", "box"], layers: [...outlineLayers(theme), ...overlay] }),
    { maxBounds: undefined, attributionControl: { compact: true } },
  );
  base.map.addControl(new NavigationControl({ showCompass: false }), "top-right");
  loadOutline(base);
  return base;
}

/** A place: `onMove(lat, lon)` when the marker was dragged, or the map was clicked. */
export class PointMap {
  constructor(onMove) {
    this.base = baseMap([]);
    const { map } = this.base;
    this.marker = new Marker({ element: el("div", { class: "pin" }), draggable: true, anchor: "bottom" });
    this.marker.on("dragend", () => this.#report(onMove));
    map.on("click", ({ lngLat }) => {
      this.marker.setLngLat(lngLat).addTo(map);
      this.#report(onMove);
    });
  }

  #report(onMove) {
    const { lat, lng } = this.marker.getLngLat().wrap();
    onMove(Number(lat.toFixed(6)), Number(lng.toFixed(6)));
  }

  /** Show the values of the form; the map moves there if the place is out of view. */
  show({ lat_deg: lat, lon_deg: lon }) {
    if (!Number.isFinite(lat) || !Number.isFinite(lon) || Math.abs(lat) > 90) return this.marker.remove();
    const { map } = this.base;
    this.marker.setLngLat([lon, lat]).addTo(map);
    if (!map.getBounds().contains([lon, lat])) map.jumpTo({ center: [lon, lat], zoom: 15 });
  }

  remove() {
    this.base.map.remove();
  }
}

/** A box: `onDraw({west, south, east, north})` when it was drawn. */
export class BoxMap {
  #from = null;

  constructor(onDraw, onEnd) {
    this.base = baseMap([
      { id: "box-fill", type: "fill", source: "box", paint: { "fill-color": COLOUR, "fill-opacity": 0.15 } },
      { id: "box-line", type: "line", source: "box", paint: { "line-color": COLOUR, "line-width": 2 } },
    ]);
    this.onDraw = onDraw;
    this.onEnd = onEnd;
    const { map } = this.base;
    for (const [down, move, up] of [["mousedown", "mousemove", "mouseup"], ["touchstart", "touchmove", "touchend"]]) {
      map.on(down, (event) => this.#start(event));
      map.on(move, (event) => this.#from && this.#drag(event.lngLat));
      map.on(up, () => this.#end());
    }
  }

  /** Whether dragging draws a box instead of moving the map. */
  setDrawing(isDrawing) {
    const { map } = this.base;
    this.isDrawing = isDrawing;
    map.dragPan[isDrawing ? "disable" : "enable"]();
    map.getCanvas().style.cursor = isDrawing ? "crosshair" : "";
  }

  #start(event) {
    if (!this.isDrawing) return;
    event.preventDefault();
    this.#from = event.lngLat;
  }

  #drag({ lng, lat }) {
    const from = this.#from;
    const round = (value) => Number(value.toFixed(5));
    const box = {
      west: round(Math.min(from.lng, lng)), south: round(Math.min(from.lat, lat)),
      east: round(Math.max(from.lng, lng)), north: round(Math.max(from.lat, lat)),
    };
    this.#draw(box);
    this.onDraw(box);
  }

  #end() {
    if (!this.#from) return;
    this.#from = null;
    this.onEnd();
  }

  show(box) {
    const sides = [box.west, box.south, box.east, box.north];
    if (!sides.every(Number.isFinite)) return;
    this.#draw(box);
    this.base.map.fitBounds(sides, PAD);
  }

  #draw({ west, south, east, north }) {
    const ring = [[west, south], [east, south], [east, north], [west, north], [west, south]];
    this.base.show("box", featureCollection([{ type: "Feature", properties: {}, geometry: { type: "Polygon", coordinates: [ring] } }]));
  }

  remove() {
    this.base.map.remove();
  }
}
