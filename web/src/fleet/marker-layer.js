// Ten thousand moving markers on their own canvas above the map, which is redrawn only when it
// moves: as a MapLibre layer, each animation step would redraw every street.
import { drawPointer, drawSymbol } from "./symbols.js";

const CAPACITY = 1024;
// The frames after a redraw are timed. Where drawing is slow (no GPU, a busy machine) the animation
// pauses, so that 19 of 20 frames are fast and the markers move in steps.
const TIMED_FRAMES = 3;
const SLOW_MS = 50;
const PAUSE_MS = 1500;
const MAX_ANIMATION_MS = 4000;
const JUMP = 0.02 / 360; // a longer move is not animated
const MOVED = 3e-7; // of the world's width, 8 m in Florence: a shorter move has no direction
const DIRECTIONS = 16;
const RADII = [[11, 4], [13, 7], [17, 11]]; // by zoom, CSS px

const mercatorX = (lonDeg) => (lonDeg + 180) / 360;
const mercatorY = (latDeg) => 0.5 - Math.asinh(Math.tan((latDeg * Math.PI) / 180)) / (2 * Math.PI);
const lonOf = (x) => x * 360 - 180;
const latOf = (y) => (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI;

export class MarkerLayer {
  constructor(map) {
    this.map = map;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "markers";
    this.canvas.setAttribute("aria-hidden", "true");
    map.getCanvasContainer().append(this.canvas);
    this.context = this.canvas.getContext("2d");
    this.reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
    this.sprites = new Map();
    this.redraws = this.changes = this.timed = this.slowestMs = 0;
    this.clear();
    map.on("move", () => this.#draw(performance.now()));
    map.on("resize", () => (this.dirty = true));
    let last = performance.now();
    const frame = (now) => {
      this.slowestMs = Math.max(this.slowestMs, now - last);
      last = now;
      if (this.timed > 0) {
        this.timed -= 1;
        if (!this.timed && this.slowestMs > SLOW_MS) this.nextAt = now + PAUSE_MS;
      } else if ((this.dirty || now <= this.movingUntil) && now >= this.nextAt) {
        this.#draw(now);
      }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  clear() {
    this.index = new Map(); // key: place in the arrays
    this.keys = [];
    this.symbols = []; // with `dim` and `direction`
    this.numbers = new Float64Array(CAPACITY * 6); // fromX, fromY, toX, toY, startedAt, durationMs
    this.selected = null;
    this.movingUntil = this.nextAt = 0;
    this.drawn = 0; // markers in the last redraw
    this.dirty = true;
  }

  /** Place a marker; with `overMs` it moves there from its current place, and points there. */
  set(key, lonDeg, latDeg, symbol, dim, overMs = 0, headingDeg = null) {
    const now = performance.now();
    const x = mercatorX(lonDeg + 360 * Math.round((this.map.getCenter().lng - lonDeg) / 360));
    const y = mercatorY(latDeg);
    let n = this.index.get(key);
    const direction = this.#direction(n, x, y, headingDeg);
    if (n === undefined) {
      n = this.keys.length;
      this.index.set(key, n);
      this.keys.push(key);
      if ((n + 1) * 6 > this.numbers.length) {
        const larger = new Float64Array(this.numbers.length * 2);
        larger.set(this.numbers);
        this.numbers = larger;
      }
      overMs = 0;
    }
    const [fromX, fromY] = overMs && !this.reducedMotion.matches ? this.#at(n, now) : [x, y];
    const jumps = Math.abs(fromX - x) > JUMP || Math.abs(fromY - y) > JUMP;
    const durationMs = jumps || (fromX === x && fromY === y) ? 0 : Math.min(overMs, MAX_ANIMATION_MS);
    this.numbers.set([jumps ? x : fromX, jumps ? y : fromY, x, y, now, durationMs], n * 6);
    this.symbols[n] = { symbol, dim, direction };
    this.changes += 1;
    this.movingUntil = Math.max(this.movingUntil, now + durationMs + 2 * PAUSE_MS);
    this.dirty = true;
  }

  /** Change a marker's symbol, without moving it. */
  setSymbol(key, symbol, dim) {
    const n = this.index.get(key);
    if (this.symbols[n].symbol === symbol && this.symbols[n].dim === dim) return;
    this.symbols[n] = { ...this.symbols[n], symbol, dim };
    this.changes += 1;
    this.dirty = true;
  }

  /** A marker's direction: 0 north, 1 to the right of it, …; by its last move without a heading. */
  #direction(n, x, y, headingDeg) {
    const directionOf = (turns) => (Math.round(turns * DIRECTIONS) + DIRECTIONS) % DIRECTIONS;
    if (headingDeg !== null) return directionOf(headingDeg / 360);
    if (n === undefined) return null;
    const [east, south] = [x - this.numbers[n * 6 + 2], y - this.numbers[n * 6 + 3]];
    const length = Math.hypot(east, south);
    if (length > JUMP) return null;
    if (length < MOVED) return this.symbols[n].direction;
    return directionOf(Math.atan2(east, -south) / (2 * Math.PI));
  }

  remove(key) {
    const n = this.index.get(key);
    if (n === undefined) return;
    const last = this.keys.length - 1;
    this.index.delete(key);
    if (n !== last) {
      this.keys[n] = this.keys[last];
      this.symbols[n] = this.symbols[last];
      this.numbers.copyWithin(n * 6, last * 6, last * 6 + 6);
      this.index.set(this.keys[n], n);
    }
    this.keys.pop();
    this.symbols.pop();
    this.dirty = true;
  }

  select(key) {
    this.selected = key;
    this.dirty = true;
  }

  drawNow() {
    this.#draw(performance.now());
  }

  /** The place at which a marker is drawn now. */
  placeOf(key) {
    const n = this.index.get(key);
    if (n === undefined) return null;
    const [x, y] = this.#at(n, performance.now());
    return [lonOf(x), latOf(y)];
  }

  /** The key of the marker nearest to a point on the canvas, within `withinPx`. */
  near({ x, y }, withinPx = 10) {
    const now = performance.now();
    const { left, top, scale } = this.#view();
    let best = withinPx ** 2;
    let found = null;
    for (let n = 0; n < this.keys.length; n += 1) {
      const [px, py] = this.#at(n, now);
      const apart = ((px - left) * scale - x) ** 2 + ((py - top) * scale - y) ** 2;
      if (apart <= best) [best, found] = [apart, this.keys[n]];
    }
    return found;
  }

  #at(n, now) {
    const i = n * 6;
    const { numbers } = this;
    const over = numbers[i + 5];
    const part = over ? Math.min(1, (now - numbers[i + 4]) / over) : 1;
    return [
      numbers[i] + (numbers[i + 2] - numbers[i]) * part,
      numbers[i + 1] + (numbers[i + 3] - numbers[i + 1]) * part,
    ];
  }

  #view() {
    const { lng, lat } = this.map.getCenter();
    const scale = 512 * 2 ** this.map.getZoom();
    const { clientWidth, clientHeight } = this.map.getContainer();
    return {
      scale,
      width: clientWidth,
      height: clientHeight,
      left: mercatorX(lng) - clientWidth / 2 / scale,
      top: mercatorY(lat) - clientHeight / 2 / scale,
    };
  }

  #draw(now) {
    const begun = performance.now();
    const { left, top, scale, width, height } = this.#view();
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      [this.canvas.width, this.canvas.height] = [wide, high];
    } else {
      this.context.clearRect(0, 0, wide, high);
    }
    const radius = Math.round(radiusAt(this.map.getZoom()) * ratio * 2) / 2;
    const { numbers, symbols, context } = this;
    const zoomed = scale * ratio;
    const selected = this.index.get(this.selected);
    let drawn = 0;
    for (let n = 0, i = 0; n < symbols.length; n += 1, i += 6) {
      const over = numbers[i + 5];
      const part = over ? Math.min(1, (now - numbers[i + 4]) / over) : 1;
      const x = (numbers[i] + (numbers[i + 2] - numbers[i]) * part - left) * zoomed;
      const y = (numbers[i + 1] + (numbers[i + 3] - numbers[i + 1]) * part - top) * zoomed;
      if (x < -radius || y < -radius || x > wide + radius || y > high + radius) continue;
      const sprite = this.#sprite(symbols[n], radius, ratio);
      context.drawImage(sprite, Math.round(x - sprite.width / 2), Math.round(y - sprite.height / 2));
      drawn += 1;
    }
    if (selected !== undefined) {
      const [x, y] = this.#at(selected, now);
      context.beginPath();
      context.arc((x - left) * zoomed, (y - top) * zoomed, radius + 4 * ratio, 0, 7);
      context.lineWidth = 4 * ratio;
      context.strokeStyle = "#ff2d78";
      context.stroke();
    }
    this.drawn = drawn;
    this.redraws += 1;
    this.dirty = false;
    this.drawMs = performance.now() - begun;
    this.timed = TIMED_FRAMES;
    this.slowestMs = 0;
  }

  #sprite({ symbol, dim, direction }, radius, ratio) {
    const name = `${symbol.label} ${dim} ${radius} ${direction}`;
    const cached = this.sprites.get(name);
    if (cached) return cached;
    if (this.sprites.size > 500) this.sprites.clear();
    const size = Math.ceil(4 * radius);
    const sprite = new OffscreenCanvas(size, size);
    const context = sprite.getContext("2d");
    context.globalAlpha = dim ? 0.4 : 1;
    if (direction !== null) {
      drawPointer(context, symbol, size / 2, radius, (direction / DIRECTIONS) * 2 * Math.PI);
    }
    drawSymbol(context, symbol, size / 2, size / 2, radius, ratio);
    this.sprites.set(name, sprite);
    return sprite;
  }
}

function radiusAt(zoom) {
  const above = RADII.findIndex(([from]) => zoom < from);
  if (above === 0) return RADII[0][1];
  if (above < 0) return RADII.at(-1)[1];
  const [[z0, r0], [z1, r1]] = [RADII[above - 1], RADII[above]];
  return r0 + ((r1 - r0) * (zoom - z0)) / (z1 - z0);
}
