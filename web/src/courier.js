// The courier on the customer's map: moves smoothly from fix to fix, with heading and trail.
//
// The marker is one fix behind: it takes as long from the last position to the newest as the
// courier did. Nothing is extrapolated beyond the newest fix. After a jump, an old fix or a change
// of courier the marker is placed without an animation and without a line in between.
import { pointFeature, featureCollection } from "./map.js";

const MAX_ANIMATION_MS = 6000; // fixes arrive every 4 s
const MIN_ANIMATION_MS = 400;
const SLACK = 1.1; // the next fix may be a little late: slower is smoother than stopping
const FRAME_MS = 40;
const MAX_AGE_S = 60; // of a fix that is animated
const JUMP_MPS = 70; // as in GET /track/{order_id}/history
const MOVED_M = 8; // below it, a direction is noise
const MOVING_MPS = 0.7;
const TURN_MS = 600;

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

export function courierLayers(theme) {
  const line = { "line-cap": "round", "line-join": "round" };
  const paint = {
    "line-color": theme === "dark" ? "#7aa5ff" : "#2f6fed",
    "line-width": 2.5,
    "line-opacity": 0.35,
  };
  const isPoint = ["==", ["geometry-type"], "Point"];
  const isLine = ["==", ["geometry-type"], "LineString"];
  return [
    { id: "trail", type: "line", source: "trail", layout: line, paint },
    { id: "trail-head", type: "line", source: "courier", filter: isLine, layout: line, paint },
    {
      id: "halo",
      type: "circle",
      source: "courier",
      filter: isPoint,
      paint: { "circle-radius": 22, "circle-color": ["get", "colour"], "circle-opacity": 0.2 },
    },
    {
      id: "courier",
      type: "circle",
      source: "courier",
      filter: isPoint,
      paint: {
        "circle-radius": 12,
        "circle-color": ["get", "colour"],
        "circle-stroke-color": "#fff",
        "circle-stroke-width": 3,
      },
    },
    {
      id: "heading",
      type: "symbol",
      source: "courier",
      filter: ["all", isPoint, ["has", "heading_deg"]],
      layout: {
        "icon-image": "heading",
        "icon-rotate": ["get", "heading_deg"],
        "icon-rotation-alignment": "map",
        "icon-allow-overlap": true,
        "icon-ignore-placement": true,
      },
    },
  ];
}

/** A white arrow that points north. */
export function headingImage() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 40;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.beginPath();
  for (const [x, y] of [[20, 5], [32, 33], [20, 27], [8, 33]]) pen.lineTo(x, y);
  pen.fill();
  return pen.getImageData(0, 0, 40, 40);
}

export class Courier {
  /** `show(source, geojson)` draws. */
  constructor(show) {
    this.show = show;
    this.#reset();
  }

  #reset() {
    this.place = null; // as drawn
    this.path = []; // still to be animated, the newest fix last
    this.lines = []; // the trail behind `place`
    this.fix = null;
    this.heading = null;
    this.turn = null;
  }

  /** Update from the API's position; null: not visible. */
  update(position, colour, assignmentNo) {
    if (assignmentNo !== this.assignmentNo) this.#reset();
    this.assignmentNo = assignmentNo;
    this.colour = colour;
    if (position) this.#moveTo(position);
    else this.#reset();
    this.#drawTrail();
    this.#draw();
  }

  /** Change the colour, as the position ages. */
  setColour(colour) {
    if (!this.place || colour === this.colour) return;
    this.colour = colour;
    this.#draw();
  }

  /** Prepend the trail from the history. `known` is the number of points drawn at the request. */
  prependTrail(line, known) {
    const newer = this.lines.flat().slice(known);
    this.lines = [[...line, ...newer]];
    const before = line.findLast((place) => metres(place, line.at(-1)) >= MOVED_M);
    if (this.heading === null && before) this.#turnTo(bearing(before, line.at(-1)), 0);
    this.#drawTrail();
    this.#draw();
  }

  get trailLength() {
    return this.lines.flat().length;
  }

  #moveTo({ geometry, properties }) {
    const now = performance.now();
    const to = geometry.coordinates;
    const fixAt = Date.parse(properties.fix_at);
    if (this.fix?.at === fixAt) return;
    const gapS = this.fix ? (fixAt - this.fix.at) / 1000 : 0;
    const stepM = this.fix ? metres(this.fix.place, to) : 0;
    const reachable = gapS > 0 && stepM <= JUMP_MPS * gapS;
    this.#turnTo(direction(this.fix?.place, to, stepM, reachable, properties), now);
    this.fix = { at: fixAt, place: to };
    const isAnimated = reachable && properties.age_s <= MAX_AGE_S && !reducedMotion.matches && !document.hidden;
    if (reachable) this.path = [...this.#stopAnimation(), to];
    else this.lines.push([]); // a gap in the trail
    if (!isAnimated) {
      if (reachable) this.lines.at(-1)?.push(...this.path);
      else this.lines.at(-1).push(to);
      this.path = [];
      this.place = to;
      return;
    }
    this.startedAt = now;
    this.durationMs = Math.min(Math.max(gapS * 1000 * SLACK, MIN_ANIMATION_MS), MAX_ANIMATION_MS);
    this.path.unshift(this.place);
    if (!this.isScheduled) requestAnimationFrame((at) => this.#frame(at));
    this.isScheduled = true;
  }

  /** Stop the animation: its passed part joins the trail; returns the rest. */
  #stopAnimation() {
    if (this.path.length < 2) return [];
    const { passed, place } = pointAlong(this.path, this.#progress(performance.now()));
    this.lines.at(-1)?.push(...this.path.slice(1, passed + 1), place);
    this.place = place;
    return this.path.slice(passed + 1);
  }

  #progress(now) {
    return Math.min(1, Math.max(0, (now - this.startedAt) / this.durationMs));
  }

  #turnTo(heading, now) {
    if (heading === null || heading === this.heading) return;
    const from = this.heading === null || reducedMotion.matches ? heading : this.#headingAt(now);
    this.turn = { from, by: ((heading - from + 540) % 360) - 180, at: now };
    this.heading = heading;
  }

  #headingAt(now) {
    if (!this.turn) return this.heading;
    const part = Math.min(1, (now - this.turn.at) / TURN_MS);
    return (this.turn.from + this.turn.by * part + 360) % 360;
  }

  #frame(now) {
    this.isScheduled = false;
    if (this.path.length < 2) return;
    const progress = this.#progress(now);
    if (now - (this.drawnAt ?? 0) >= FRAME_MS || progress === 1) {
      this.drawnAt = now;
      if (progress === 1) {
        this.#stopAnimation();
        this.path = [];
        this.#drawTrail();
      } else {
        this.place = pointAlong(this.path, progress).place;
      }
      this.#draw(now);
    }
    if (progress < 1 || now - (this.turn?.at ?? 0) < TURN_MS) {
      this.isScheduled = true;
      requestAnimationFrame((at) => this.#frame(at));
    }
  }

  #draw(now = performance.now()) {
    const features = [];
    if (this.place) {
      const heading = this.#headingAt(now);
      const facing = heading === null ? {} : { heading_deg: heading };
      features.push(pointFeature(this.place, { colour: this.colour, ...facing }));
      const passed = this.path.length > 1 ? pointAlong(this.path, this.#progress(now)) : null;
      const last = this.lines.at(-1)?.at(-1);
      if (passed && last) {
        features.push(lineFeature([last, ...this.path.slice(0, passed.passed + 1), passed.place]));
      }
    }
    this.show("courier", featureCollection(features));
  }

  #drawTrail() {
    const drawn = this.lines.filter((line) => line.length > 1);
    this.show("trail", featureCollection(drawn.map((line) => lineFeature(line))));
  }
}

function lineFeature(coordinates) {
  return { type: "Feature", geometry: { type: "LineString", coordinates }, properties: {} };
}

/** The place at a share of a path's length, and the number of corners passed. */
function pointAlong(path, share) {
  const lengths = path.slice(1).map((to, n) => metres(path[n], to));
  let remaining = share * lengths.reduce((sum, one) => sum + one, 0);
  for (const [n, length] of lengths.entries()) {
    if (remaining <= length && share < 1) {
      const part = length ? remaining / length : 1;
      const [from, to] = [path[n], path[n + 1]];
      const place = [from[0] + (to[0] - from[0]) * part, from[1] + (to[1] - from[1]) * part];
      return { passed: n, place };
    }
    remaining -= length;
  }
  return { passed: path.length - 1, place: path.at(-1) };
}

/** The heading: the phone's while moving, else from the last movement, else null. */
function direction(from, to, stepM, reachable, { heading_deg: reported, speed_mps: speed }) {
  if (reported !== null && reported !== undefined && (speed ?? MOVING_MPS) >= MOVING_MPS) return reported;
  return reachable && stepM >= MOVED_M ? bearing(from, to) : null;
}

function bearing(from, to) {
  const east = (to[0] - from[0]) * Math.cos((to[1] * Math.PI) / 180);
  return ((Math.atan2(east, to[1] - from[1]) * 180) / Math.PI + 360) % 360;
}

function metres(a, b) {
  const north = (b[1] - a[1]) * 111_195;
  const east = (b[0] - a[0]) * 111_195 * Math.cos((a[1] * Math.PI) / 180);
  return Math.hypot(north, east);
}
