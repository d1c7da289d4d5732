// The customer's map: the courier, the trail, the restaurant and the door.
import { Courier, courierLayers, headingImage } from "./courier.js";
import { PICKED_UP_STATES } from "./labels.js";
import { BaseMap, LngLatBounds, orderPlaces, placeLayers } from "./map.js";
import { routeLayers, wayFrom } from "./track/way.js";
import { doorOf, placesInView, restaurantOf, VIEW } from "./order-view.js";

const $ = (id) => document.getElementById(id);
const MAX_GAP_MS = 10_000; // between two positions; over it the trail is fetched

export class OrderMap {
  #track;
  #framedStage = "";
  #trails = 0; // requests
  #isMoved = false; // by the customer: the map no longer follows the courier

  /** `track` is the answer of GET `orderPath`, `names` are of the door and the restaurant. Throws where the browser cannot draw a map. */
  constructor(orderPath, track, colour, names) {
    Object.assign(this, { orderPath, names });
    const overlays = (theme) => ({
      sources: ["places", "route", "trail", "courier"],
      layers: [...routeLayers(theme), ...placeLayers(theme), ...courierLayers(theme)],
    });
    this.base = new BaseMap("map", track.city, overlays, { bounds: boundsOf(track), fitBoundsOptions: VIEW });
    this.base.limitToTiles().catch(() => {}); // only a convenience
    const { map } = this.base;
    map.on("styleimagemissing", ({ id }) => {
      if (id === "heading") map.addImage(id, headingImage(), { pixelRatio: 2 });
    });
    map.on("movestart", (event) => {
      this.#isMoved ||= Boolean(event.originalEvent);
      $("recentre").hidden = !this.#isMoved;
    });
    $("recentre").addEventListener("click", () => {
      this.#isMoved = false;
      this.#framedStage = "";
      $("recentre").hidden = true;
      this.#follow();
    });
    this.courier = new Courier((source, geojson) => this.base.show(source, geojson));
    this.#framedStage = stageOf(track);
    this.replace(track, colour);
  }

  /** Draw a track of which positions may have been missed; the trail is fetched if they were. */
  replace(track, colour) {
    const before = this.courier.assignmentNo === track.assignment_no ? this.courier.fix : null;
    this.update(track, colour);
    const isGap = !before || this.courier.fix?.at - before.at > MAX_GAP_MS;
    if (track.position && isGap && !track.is_shared) this.#loadTrail(track.assignment_no);
  }

  update(track, colour) {
    this.#track = track;
    this.courier.update(track.position, colour, track.assignment_no);
    const restaurantName = track.restaurant?.name || this.names.restaurant;
    const places = { restaurant: restaurantOf(track), door: doorOf(track), restaurantName };
    this.base.show("places", orderPlaces({ ...places, doorName: this.names.door }));
    this.base.show("route", wayFrom(track.route, track.position?.geometry.coordinates));
    this.#follow();
  }

  /** The courier's colour, as the position ages. */
  setColour(colour) {
    this.courier.setColour(colour);
  }

  /** Fetch the trail: the positions from before the page was opened, or from an interruption. */
  async #loadTrail(assignmentNo) {
    const trail = (this.#trails += 1);
    const known = this.courier.trailLength;
    const response = await fetch(`${this.orderPath}/history`).catch(() => null);
    if (!response?.ok) return; // the trail starts here
    const [line] = (await response.json()).features;
    if (trail !== this.#trails) return; // a later one draws the same places
    const isLine = line?.geometry.type === "LineString";
    const isCurrent = this.courier.fix && this.courier.assignmentNo === assignmentNo;
    if (isLine && isCurrent) this.courier.prependTrail(line.geometry.coordinates, known);
  }

  /** Keep the courier and the destination in view, closer as the courier approaches. */
  #follow() {
    if (!this.base.isUsable) return;
    const { map } = this.base;
    const place = this.#track.position?.geometry.coordinates;
    const bounds = boundsOf(this.#track);
    const stage = stageOf(this.#track);
    const zoomGain = (map.cameraForBounds(bounds, VIEW)?.zoom ?? 0) - map.getZoom();
    const isFramed = this.#isMoved || !place || (this.#isInView(place) && zoomGain < 1);
    if (stage === this.#framedStage && isFramed) return;
    this.#framedStage = stage;
    map.fitBounds(bounds, { ...VIEW, duration: 600 });
  }

  #isInView(lonLat) {
    const { x, y } = this.base.map.project(lonLat);
    const { clientWidth, clientHeight } = this.base.map.getContainer();
    return x > 30 && y > 30 && x < clientWidth - 30 && y < clientHeight - 55;
  }
}

/** A change of it moves the view. */
const stageOf = ({ state, position }) => `${PICKED_UP_STATES.includes(state)}${Boolean(position)}`;

function boundsOf(track) {
  const bounds = new LngLatBounds();
  for (const place of placesInView(track)) bounds.extend(place);
  return bounds;
}
