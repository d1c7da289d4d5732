// The courier on the customer's map: glides from fix to fix, with heading and the way so far.
//
// What is drawn is one report behind: the way from the last place to the newest takes as long as
// the courier took for it. Nothing is guessed beyond the newest fix. A jump, an old fix and
// another courier are put where they are, without a way between that nobody has gone.
import { pointOf, pointsOf } from "./map.js";

const LONGEST_GLIDE_MS = 6000; // reports come every 4 s
const SHORTEST_GLIDE_MS = 400;
const SLACK = 1.1; // the next report may be a little late: better slow than to stop and go
const DRAW_EVERY_MS = 40;
const OLD_S = 60; // an older fix is no movement of now
const JUMP_MPS = 70; // as GET /track/{order_id}/history flags them
const MOVED_M = 8; // below this, a direction is noise
const MOVING_MPS = 0.7;
const TURN_MS = 600;

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export function courierLayers(theme) {
  const line = { "line-cap": "round", "line-join": "round" };
  const paint = { "line-color": theme === "dark" ? "#7aa5ff" : "#2f6fed", "line-width": 5 };
  const isPoint = ["==", ["geometry-type"], "Point"];
  const isKind = (kind) => ["==", ["get", "kind"], kind];
  const dashes = { ...paint, "line-width": 2.5, "line-dasharray": [1, 2] };
  return [
    { id: "way", type: "line", source: "courier", filter: isKind("ahead"), layout: line, paint: dashes },
    { id: "trail", type: "line", source: "trail", layout: line, paint },
    { id: "trail-head", type: "line", source: "courier", filter: isKind("gone"), layout: line, paint },
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
    this.ahead = []; // where the courier still has to go
    this.#forget();
  }

  #forget() {
    this.place = null; // as drawn
    this.path = []; // still to go, the newest fix last
    this.lines = []; // the way so far, behind `place`
    this.fix = null;
    this.heading = null;
    this.turn = null;
  }

  /** Take a position as the API gives it; null: there is nobody to be seen. */
  update(position, colour, assignmentNo) {
    if (assignmentNo !== this.assignmentNo) this.#forget();
    this.assignmentNo = assignmentNo;
    this.colour = colour;
    if (position) this.#go(position);
    else this.#forget();
    this.#drawTrail();
    this.#draw();
  }

  /** Change the colour, as what is known gets old. */
  paint(colour) {
    if (!this.place || colour === this.colour) return;
    this.colour = colour;
    this.#draw();
  }

  /** Take the line of the way so far; what was gone since `known` (points) comes after it. */
  remember(line, known) {
    const since = this.lines.flat().slice(known);
    this.lines = [[...line, ...since]];
    const before = line.findLast((place) => metres(place, line.at(-1)) >= MOVED_M);
    if (this.heading === null && before) this.#turnTo(bearing(before, line.at(-1)), 0);
    this.#drawTrail();
    this.#draw();
  }

  get pointsKnown() {
    return this.lines.flat().length;
  }

  #go({ geometry, properties }) {
    const now = performance.now();
    const to = geometry.coordinates;
    const fixAt = Date.parse(properties.fix_at);
    if (this.fix?.at === fixAt) return;
    const gapS = this.fix ? (fixAt - this.fix.at) / 1000 : 0;
    const stepM = this.fix ? metres(this.fix.place, to) : 0;
    const reachable = gapS > 0 && stepM <= JUMP_MPS * gapS;
    this.#turnTo(direction(this.fix?.place, to, stepM, reachable, properties), now);
    this.fix = { at: fixAt, place: to };
    const glides = reachable && properties.age_s <= OLD_S && !calm.matches && !document.hidden;
    if (reachable) this.path = [...this.#ahead(), to];
    else this.lines.push([]); // the line leaves out what nobody has gone
    if (!glides) {
      if (reachable) this.lines.at(-1)?.push(...this.path);
      else this.lines.at(-1).push(to);
      this.path = [];
      this.place = to;
      return;
    }
    this.startedAt = now;
    this.overMs = Math.min(Math.max(gapS * 1000 * SLACK, SHORTEST_GLIDE_MS), LONGEST_GLIDE_MS);
    this.path.unshift(this.place);
    if (!this.asked) requestAnimationFrame((at) => this.#frame(at));
    this.asked = true;
  }

  /** End the glide where it is: what is behind joins the way so far, what is ahead is given. */
  #ahead() {
    if (this.path.length < 2) return [];
    const { passed, place } = along(this.path, this.#part(performance.now()));
    this.lines.at(-1)?.push(...this.path.slice(1, passed + 1), place);
    this.place = place;
    return this.path.slice(passed + 1);
  }

  #part(now) {
    return Math.min(1, Math.max(0, (now - this.startedAt) / this.overMs));
  }

  #turnTo(heading, now) {
    if (heading === null || heading === this.heading) return;
    const from = this.heading === null || calm.matches ? heading : this.#headingAt(now);
    this.turn = { from, by: ((heading - from + 540) % 360) - 180, at: now };
    this.heading = heading;
  }

  #headingAt(now) {
    if (!this.turn) return this.heading;
    const part = Math.min(1, (now - this.turn.at) / TURN_MS);
    return (this.turn.from + this.turn.by * part + 360) % 360;
  }

  #frame(now) {
    this.asked = false;
    if (this.path.length < 2) return;
    const part = this.#part(now);
    if (now - (this.drawnAt ?? 0) >= DRAW_EVERY_MS || part === 1) {
      this.drawnAt = now;
      if (part === 1) {
        this.#ahead();
        this.path = [];
        this.#drawTrail();
      } else {
        this.place = along(this.path, part).place;
      }
      this.#draw(now);
    }
    if (part < 1 || now - (this.turn?.at ?? 0) < TURN_MS) {
      this.asked = true;
      requestAnimationFrame((at) => this.#frame(at));
    }
  }

  #draw(now = performance.now()) {
    const features = [];
    if (this.place) {
      const heading = this.#headingAt(now);
      const facing = heading === null ? {} : { heading_deg: heading };
      features.push(pointOf(this.place, { colour: this.colour, ...facing }));
      features.push(lineOf([this.place, ...this.ahead], "ahead"));
      const gone = this.path.length > 1 ? along(this.path, this.#part(now)) : null;
      const last = this.lines.at(-1)?.at(-1);
      if (gone && last) {
        features.push(lineOf([last, ...this.path.slice(0, gone.passed + 1), gone.place], "gone"));
      }
    }
    this.show("courier", pointsOf(features));
  }

  #drawTrail() {
    const drawn = this.lines.filter((line) => line.length > 1);
    this.show("trail", pointsOf(drawn.map((line) => lineOf(line, "gone"))));
  }
}

function lineOf(coordinates, kind) {
  return { type: "Feature", geometry: { type: "LineString", coordinates }, properties: { kind } };
}

/** Where one is after this part of a path, and how many of its corners are passed. */
function along(path, part) {
  const lengths = path.slice(1).map((to, n) => metres(path[n], to));
  let left = part * lengths.reduce((sum, one) => sum + one, 0);
  for (const [n, length] of lengths.entries()) {
    if (left <= length && part < 1) {
      const share = length ? left / length : 1;
      const [from, to] = [path[n], path[n + 1]];
      const place = [from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share];
      return { passed: n, place };
    }
    left -= length;
  }
  return { passed: path.length - 1, place: path.at(-1) };
}

/** Where the courier faces: as the phone says while it moves, else as it has moved, else null. */
function direction(from, to, stepM, reachable, { heading_deg: said, speed_mps: speed }) {
  if (said !== null && said !== undefined && (speed ?? MOVING_MPS) >= MOVING_MPS) return said;
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
