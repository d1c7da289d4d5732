// The points of one series: in order, each instant once, and never more than a bound.
export const MOST_POINTS = 20_000;

export class Points {
  constructor(points = [], most = MOST_POINTS) {
    this.most = most;
    this.xs = []; // epoch seconds
    this.ys = [];
    this.add(points);
  }

  /** Take [epoch ms, value] pairs, in any order; of two under one instant the first stays. */
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
      if (this.xs.length > this.most) this.#thin();
    }
  }

  /** Where the first point at or after x stands. */
  indexOf(x) {
    let [low, high] = [0, this.xs.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.xs[middle] < x) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Forget what lies before x. */
  dropBefore(x) {
    const gone = this.indexOf(x);
    if (gone) {
      this.xs.splice(0, gone);
      this.ys.splice(0, gone);
    }
  }

  /** Keep the lowest and the highest of every four: half of the points, and every spike. */
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

/** Read server-sent events of an answer to fetch (EventSource can't send a token).
 *
 * `heard` is called with whatever comes, a heartbeat too.
 */
export async function readEvents(answer, take, heard = () => {}) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const event = {};
      for (const line of block.split("\n")) {
        const colon = line.indexOf(": ");
        if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 2);
      }
      if (event.data) take(event);
    }
  }
}
