// The map of a form: a restaurant's draggable marker, or the box of an area, drawn by dragging.
import { el } from "../elements.js";
import { unwrapped, wrap } from "../fleet/boxes.js";
import { BaseMap, featureCollection, Marker, NavigationControl } from "../map.js";
import { loadOutline, outlineLayers } from "../outline.js";

const COLOUR = "#2f6fed";
const PAD = { padding: 30, animate: false, maxZoom: 16 };

/** A map of the city around a place, or of the first one. */
class PlaceMap {
  #city;

  constructor(cities, overlay) {
    this.cities = cities.filter(({ map_url: url }) => url);
    [this.#city] = this.cities;
    this.base = baseMap(this.#city ?? cities[0], overlay);
  }

  /** Draw the streets around a place. */
  showStreetsAt(lon, lat) {
    const isAround = ({ bounds }) => {
      const [west, south, east, north] = unwrapped(bounds);
      return lat >= south && lat <= north && [lon, lon + 360].some((one) => one >= west && one <= east);
    };
    const found = this.cities.find(isAround);
    if (!found || found === this.#city) return;
    this.#city = found;
    this.base.setCity(found.name);
  }

  remove() {
    this.base.map.remove();
  }
}

function baseMap(city, overlay) {
  const base = new BaseMap(
    "map",
    city?.map_url && city.name,
    (theme) => ({ sources: ["outline", "box"], layers: [...outlineLayers(theme), ...overlay] }),
    { center: city?.centre ?? [0, 30], zoom: city ? 12 : 2, attributionControl: { compact: true } },
  );
  base.map.addControl(new NavigationControl({ showCompass: false }), "top-right");
  loadOutline(base);
  return base;
}

/** A place: `onMove(lat, lon)` when the marker was dragged, or the map was clicked. */
export class PointMap extends PlaceMap {
  constructor(cities, onMove) {
    super(cities, []);
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
    this.showStreetsAt(lon, lat);
    this.marker.setLngLat([lon, lat]).addTo(map);
    if (!map.getBounds().contains([lon, lat])) map.jumpTo({ center: [lon, lat], zoom: 15 });
  }
}

/** A box: `onDraw({west, south, east, north})` when it was drawn. */
export class BoxMap extends PlaceMap {
  #from = null;

  constructor(cities, onDraw, onEnd) {
    super(cities, [
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
    const [west, east] = [Math.min(from.lng, lng), Math.max(from.lng, lng)];
    const [south, north] = [round(Math.min(from.lat, lat)), round(Math.max(from.lat, lat))];
    this.#draw([west, south, east, north]);
    this.onDraw({ west: round(wrap(west)), south, east: round(wrap(east)), north });
  }

  #end() {
    if (!this.#from) return;
    this.#from = null;
    this.onEnd();
  }

  show(box) {
    const sides = [box.west, box.south, box.east, box.north];
    if (!sides.every(Number.isFinite) || Math.abs(box.south) > 90 || Math.abs(box.north) > 90) return;
    const drawn = unwrapped(sides);
    this.showStreetsAt((drawn[0] + drawn[2]) / 2, (drawn[1] + drawn[3]) / 2);
    this.#draw(drawn);
    this.base.map.fitBounds(drawn, PAD);
  }

  #draw([west, south, east, north]) {
    const ring = [[west, south], [east, south], [east, north], [west, north], [west, south]];
    this.base.show("box", featureCollection([{ type: "Feature", properties: {}, geometry: { type: "Polygon", coordinates: [ring] } }]));
  }
}
