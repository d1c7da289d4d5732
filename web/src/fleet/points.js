// Ten thousand gliding points on a canvas of their own above the map. The map below is drawn again
// only when it moves: with a MapLibre layer each of their steps would draw every street again.
const CAPACITY = 1024;
// After a picture the next few frames are watched: where drawing is slow (no graphics card, a busy
// machine) the points then rest so long that 19 of 20 frames are quick, and step instead of glide.
const WATCHED_FRAMES = 3;
const SLOW_MS = 50;
const REST_MS = 1500;
const LONGEST_GLIDE_MS = 4000;
const JUMP = 0.02 / 360; // farther is no gliding
const RADII = [[11, 4], [14, 6.5], [17, 11]]; // by zoom

const mercatorX = (lonDeg) => (lonDeg + 180) / 360;
const mercatorY = (latDeg) => 0.5 - Math.asinh(Math.tan((latDeg * Math.PI) / 180)) / (2 * Math.PI);
const lonOf = (x) => x * 360 - 180;
const latOf = (y) => (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI;

export class Points {
  constructor(map) {
    this.map = map;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "points";
    this.canvas.setAttribute("aria-hidden", "true");
    map.getCanvasContainer().append(this.canvas);
    this.context = this.canvas.getContext("2d");
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.sprites = new Map();
    this.pictures = this.watched = this.slowestMs = 0;
    this.clear();
    map.on("move", () => this.#draw(performance.now()));
    map.on("resize", () => (this.dirty = true));
    let last = performance.now();
    const frame = (now) => {
      this.slowestMs = Math.max(this.slowestMs, now - last);
      last = now;
      if (this.watched > 0) {
        this.watched -= 1;
        if (!this.watched && this.slowestMs > SLOW_MS) this.nextAt = now + REST_MS;
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
    this.looks = []; // the sprite's name
    this.numbers = new Float64Array(CAPACITY * 6); // fromX, fromY, toX, toY, startedAt, overMs
    this.chosen = null;
    this.movingUntil = this.nextAt = 0;
    this.drawn = 0; // of them, in the last picture
    this.isLive = true; // what is drawn is now, and not the past
    this.dirty = true;
  }

  /** Put a point somewhere; with `overMs` it glides there from where it is. */
  set(key, lonDeg, latDeg, colour, dim, overMs = 0) {
    const now = performance.now();
    const x = mercatorX(lonDeg);
    const y = mercatorY(latDeg);
    let n = this.index.get(key);
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
    const [fromX, fromY] = overMs && !this.still.matches ? this.#at(n, now) : [x, y];
    const jumps = Math.abs(fromX - x) > JUMP || Math.abs(fromY - y) > JUMP;
    const glideMs = jumps || (fromX === x && fromY === y) ? 0 : Math.min(overMs, LONGEST_GLIDE_MS);
    this.numbers.set([jumps ? x : fromX, jumps ? y : fromY, x, y, now, glideMs], n * 6);
    this.looks[n] = dim ? `${colour}-` : colour;
    this.movingUntil = Math.max(this.movingUntil, now + glideMs + 2 * REST_MS);
    this.dirty = true;
  }

  /** Change what a point looks like, wherever it is on its way. */
  look(key, colour, dim) {
    const look = dim ? `${colour}-` : colour;
    const n = this.index.get(key);
    if (this.looks[n] === look) return;
    this.looks[n] = look;
    this.dirty = true;
  }

  remove(key) {
    const n = this.index.get(key);
    if (n === undefined) return;
    const last = this.keys.length - 1;
    this.index.delete(key);
    if (n !== last) {
      this.keys[n] = this.keys[last];
      this.looks[n] = this.looks[last];
      this.numbers.copyWithin(n * 6, last * 6, last * 6 + 6);
      this.index.set(this.keys[n], n);
    }
    this.keys.pop();
    this.looks.pop();
    this.dirty = true;
  }

  choose(key) {
    this.chosen = key;
    this.dirty = true;
  }

  drawNow() {
    this.#draw(performance.now());
  }

  /** Where a point is drawn now. */
  placeOf(key) {
    const n = this.index.get(key);
    if (n === undefined) return null;
    const [x, y] = this.#at(n, performance.now());
    return [lonOf(x), latOf(y)];
  }

  /** The key of the point nearest to a place on the canvas, within so many pixels. */
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
    const { numbers, looks, context } = this;
    const zoomed = scale * ratio;
    const chosen = this.index.get(this.chosen);
    let drawn = 0;
    for (let n = 0, i = 0; n < looks.length; n += 1, i += 6) {
      const over = numbers[i + 5];
      const part = over ? Math.min(1, (now - numbers[i + 4]) / over) : 1;
      const x = (numbers[i] + (numbers[i + 2] - numbers[i]) * part - left) * zoomed;
      const y = (numbers[i + 1] + (numbers[i + 3] - numbers[i + 1]) * part - top) * zoomed;
      if (x < -radius || y < -radius || x > wide + radius || y > high + radius) continue;
      const sprite = this.#sprite(looks[n], radius);
      context.drawImage(sprite, Math.round(x - sprite.width / 2), Math.round(y - sprite.height / 2));
      drawn += 1;
    }
    if (chosen !== undefined) {
      const [x, y] = this.#at(chosen, now);
      context.beginPath();
      context.arc((x - left) * zoomed, (y - top) * zoomed, radius + 4 * ratio, 0, 7);
      context.lineWidth = 4 * ratio;
      context.strokeStyle = "#ff2d78";
      context.stroke();
    }
    this.drawn = drawn;
    this.pictures += 1;
    this.dirty = false;
    this.tookMs = performance.now() - begun;
    this.watched = WATCHED_FRAMES;
    this.slowestMs = 0;
  }

  #sprite(look, radius) {
    const name = `${look} ${radius}`;
    const known = this.sprites.get(name);
    if (known) return known;
    if (this.sprites.size > 500) this.sprites.clear(); // many zooms later
    const dim = look.endsWith("-");
    const edge = Math.max(1, radius / 4);
    const size = Math.ceil(2 * (radius + edge));
    const sprite = new OffscreenCanvas(size, size);
    const context = sprite.getContext("2d");
    context.globalAlpha = dim ? 0.4 : 1;
    context.beginPath();
    context.arc(size / 2, size / 2, radius, 0, 7);
    context.fillStyle = dim ? look.slice(0, -1) : look;
    context.fill();
    context.lineWidth = edge;
    context.strokeStyle = "#fff";
    context.stroke();
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
