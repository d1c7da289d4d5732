// The device: what becomes of each fix, after the reference device (`device/` in Python). Without the
// DOM: journal, sender and clock are passed in. tests/device_cases proves both with the same cases.
//
//   write    a fix goes to the journal with the next seq of its boot, before it is sent
//   pump     pending fixes go out in the order of their seqs, up to 256 in a request, one at a time
//   200      committed: each fix leaves the journal, whatever its outcome
//   others   the fixes stay, and go out again after a while with the same boot and seq
//   conflict the journal was restored from a backup: its fixes go on under a new boot
//   full     a full journal gives up its oldest fixes, and counts them
//
// Copies are harmless: the platform identifies a fix by (driver, boot, seq).
const MAX_BATCH_FIXES = 256;
export const MAX_BATCH_BYTES = 60_000; // the contract's 64 KiB, minus brackets and a margin
export const MAX_FIXES = 25_000; // 27 h at one fix in 4 s; the platform refuses fixes older than 24 h
export const RETRY_MIN_S = 1;
export const RETRY_MAX_S = 30;

const UNAUTHORIZED = [401, 403];
const TOO_MUCH = [413, 422]; // of the whole request: half of it may be accepted

/** A random name, of a boot: no two journals share one. */
export function randomName(random = crypto.getRandomValues(new Uint8Array(8))) {
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The first rows that fit into one request. */
function takeBatch(rows, maxFixes = MAX_BATCH_FIXES) {
  let bytes = 0;
  const end = rows.slice(0, maxFixes).findIndex(({ fix }, n) => {
    bytes += JSON.stringify(fix).length + 40; // with boot and seq
    return n > 0 && bytes > MAX_BATCH_BYTES;
  });
  return rows.slice(0, end < 0 ? maxFixes : end);
}

export class Device {
  #journal;
  #send;
  #nowS;
  #random;
  #onChange;
  #maxFixes;
  #writing = Promise.resolve();
  #pumping = null;
  #failures = 0;
  #batchFixes = MAX_BATCH_FIXES;
  #busyUntilS = 0; // the platform's Retry-After
  #state; // { boot, lastSeq, pending, givenUp, rejected }

  /**
   * `journal` is durable, see journal.js. `send(fixes)` resolves to { status, retryAfterS, outcomes },
   * and rejects without an answer.
   */
  constructor({ journal, send, nowS, random = Math.random, onChange = () => {}, maxFixes = MAX_FIXES }) {
    Object.assign(this, { isFull: false, isUnauthorized: false, retryAtS: 0, hasFailed: false });
    this.#journal = journal;
    this.#send = send;
    this.#nowS = nowS;
    this.#random = random;
    this.#onChange = onChange;
    this.#maxFixes = maxFixes;
  }

  /** Read the journal, or begin its first boot. */
  async open() {
    this.#state = await this.#journal.open(randomName());
  }

  get boot() {
    return this.#state.boot;
  }

  /** How many fixes are not yet safe with the platform. */
  get pending() {
    return this.#state.pending;
  }

  /** How many fixes a full journal gave up. */
  get givenUp() {
    return this.#state.givenUp;
  }

  /** How many fixes the platform refused. */
  get rejected() {
    return this.#state.rejected;
  }

  /** Write a fix to the journal. Resolves once it is durable, to false if there is no room for it. */
  write(fix) {
    const written = this.#writing.then(() => this.#append(fix));
    this.#writing = written.catch(() => {});
    return written;
  }

  async #append(fix) {
    const state = this.#state;
    const seq = state.lastSeq + 1;
    const givenUp = Math.max(0, state.pending + 1 - this.#maxFixes);
    try {
      await this.#journal.append(seq, fix, givenUp);
    } catch (error) {
      if (error?.name !== "QuotaExceededError") throw error;
      this.isFull = true;
      this.#onChange();
      return false;
    }
    this.isFull = false;
    state.lastSeq = seq;
    state.pending += 1 - givenUp;
    state.givenUp += givenUp;
    this.#onChange();
    return true;
  }

  /** Send what is pending, unless a retry has to wait. Resolves when nothing more can be sent now. */
  pump() {
    this.#pumping ??= this.#sendAll().finally(() => {
      this.#pumping = null;
    });
    return this.#pumping;
  }

  /** The network is back, or the driver signed in: try now, but never before a Retry-After. */
  retryNow() {
    this.#failures = 0;
    this.retryAtS = this.#busyUntilS;
    return this.pump();
  }

  async #sendAll() {
    while (this.#nowS() >= this.retryAtS) {
      const { boot } = this;
      const rows = takeBatch(await this.#journal.oldest(MAX_BATCH_FIXES), this.#batchFixes);
      if (rows.length === 0) return;
      const fixes = rows.map(({ seq, fix }) => ({ boot, seq, ...fix }));
      const answer = await this.#send(fixes).catch(() => null);
      await this.#handle(answer, rows);
      this.#onChange();
    }
  }

  async #handle(answer, rows) {
    const status = answer?.status ?? 0;
    // The login page of a hotspot answers 200, too.
    const isCommitted = status === 200 && answer.outcomes?.length === rows.length;
    this.isUnauthorized = UNAUTHORIZED.includes(status);
    if (isCommitted) {
      this.#succeed();
      await this.#settle(rows, answer.outcomes);
    } else if (TOO_MUCH.includes(status) && rows.length > 1) {
      this.#batchFixes = Math.ceil(rows.length / 2);
    } else if (TOO_MUCH.includes(status)) {
      await this.#settle(rows, ["rejected"]);
    } else {
      this.#fail(answer?.retryAfterS ?? 0);
    }
  }

  #succeed() {
    this.#failures = this.retryAtS = this.#busyUntilS = 0;
    this.#batchFixes = MAX_BATCH_FIXES;
    this.hasFailed = false;
  }

  #fail(retryAfterS) {
    this.hasFailed = true;
    this.#failures += 1;
    const mostS = Math.min(RETRY_MAX_S, RETRY_MIN_S * 2 ** this.#failures);
    const waitS = RETRY_MIN_S + this.#random() * (mostS - RETRY_MIN_S);
    this.#busyUntilS = retryAfterS > 0 ? this.#nowS() + retryAfterS : 0;
    this.retryAtS = Math.max(this.#busyUntilS, this.#nowS() + waitS);
  }

  /** Remove what the platform has settled. */
  async #settle(rows, outcomes) {
    const conflicts = rows.filter((_, n) => outcomes[n] === "conflict");
    const rejected = outcomes.filter((outcome) => outcome === "rejected").length;
    const seqs = rows.map(({ seq }) => seq);
    // After a write, so that the new boot has every fix of the old one.
    const settled = this.#writing.then(async () => {
      if (conflicts.length > 0) this.#state = await this.#journal.replaceBoot(randomName(), seqs, conflicts);
      else this.#state.pending -= await this.#journal.remove(seqs, rejected);
      this.#state.rejected += conflicts.length > 0 ? 0 : rejected;
    });
    this.#writing = settled.catch(() => {});
    await settled;
  }
}
