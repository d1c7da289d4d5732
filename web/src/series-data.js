// The points of one series: ordered, unique by instant, bounded in number.
export const MAX_POINTS = 20_000;

export class SeriesPoints {
  constructor(points = [], max = MAX_POINTS) {
    this.max = max;
    this.xs = []; // epoch seconds
    this.ys = [];
    this.add(points);
  }

  /** Add [epoch ms, value] pairs in any order; the first of two at one instant is kept. */
  add(points) {
    for (const [ms, value] of points) {
      if (!Number.isFinite(ms) || !Number.isFinite(value)) continue;
      const x = ms / 1000;
      const end = this.xs.length;
      if (!end || x > this.xs[end - 1]) {
        this.xs.push(x);
        this.ys.push(value);
      } else {
        const at = this.indexOf(x);
        if (this.xs[at] === x) continue;
        this.xs.splice(at, 0, x);
        this.ys.splice(at, 0, value);
      }
      if (this.xs.length > this.max) this.#thin();
    }
  }

  /** The index of the first point at or after x. */
  indexOf(x) {
    let [low, high] = [0, this.xs.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.xs[middle] < x) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Drop the points before x. */
  dropBefore(x) {
    const count = this.indexOf(x);
    if (count) {
      this.xs.splice(0, count);
      this.ys.splice(0, count);
    }
  }

  /** Keep the minimum and maximum of every four points: half of them, with every spike. */
  #thin() {
    const [xs, ys] = [[], []];
    for (let start = 0; start < this.xs.length; start += 4) {
      const end = Math.min(start + 4, this.xs.length);
      let [low, high] = [start, start];
      for (let n = start + 1; n < end; n++) {
        if (this.ys[n] < this.ys[low]) low = n;
        if (this.ys[n] > this.ys[high]) high = n;
      }
      for (const n of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) {
        xs.push(this.xs[n]);
        ys.push(this.ys[n]);
      }
    }
    [this.xs, this.ys] = [xs, ys];
  }
}
