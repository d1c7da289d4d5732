// One order's stream: reconnects by itself, and delivers each event once.
import { FINAL_STATES } from "./labels.js";
import { onPageCache, readEventStream, retryDelayMs } from "./event-stream.js";
import { takeSlot } from "./stream-slots.js";

const RESPONSE_TIMEOUT_MS = 8000;
const STALE_MS = 15_000; // after so long in the background the connection may be dead
const POLL_MS = 4000; // while other tabs have all the streams
const QUIET_MS = 13_000; // the server sends a heartbeat every 10 s: one that is late is reported

/** The link is not valid, or no longer. */
export const LINK_NOT_FOUND = new Error("404");

/**
 * Follows an order until it ends. `on` has:
 *   snapshot(track), position(update), order(event), notice(update)  as the API sends them
 *   connection(lostSinceMs)                          null while connected
 */
export class OrderStream {
  #isSuspended = false;
  #isEnded = false;
  #activeAt = Date.now(); // the last data, heartbeats included
  #retryMs = 0; // what the server asks for
  #wake = () => {}; // ends a wait between retries
  #abort = () => {}; // closes the current connection

  constructor(path, on) {
    Object.assign(this, { path, on });
    this.lastId = ""; // of the newest event: the stream resumes after it
    this.ids = []; // of all events received
    setInterval(() => {
      if (!this.#isEnded && Date.now() - this.#activeAt > QUIET_MS) this.#reportLoss();
    }, 1000);
    addEventListener("online", () => this.#wake());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      if (Date.now() - this.#activeAt > STALE_MS) this.reconnect();
      else this.#wake();
    });
    onPageCache(
      () => {
        this.#isSuspended = true;
        this.#abort();
      },
      () => {
        this.#isSuspended = false;
        this.reconnect();
      },
    );
  }

  /** Connect again now. */
  reconnect() {
    this.#abort();
    this.#wake();
  }

  /** Resolves when the order has ended; throws LINK_NOT_FOUND. Calls `open` until it succeeds. */
  async follow(open) {
    let isOpen = false;
    for (let failures = 0; ; ) {
      let outcome = "failed";
      try {
        if (!isOpen) await open();
        isOpen = true;
        outcome = await this.#readOrPoll(() => (failures = 0));
      } catch (error) {
        this.#isEnded = error === LINK_NOT_FOUND;
        if (this.#isEnded) throw error;
        this.#reportLoss();
      }
      this.#isEnded = outcome === "ended";
      if (this.#isEnded) return;
      if (outcome === "aborted" && !this.#isSuspended) continue;
      if (outcome === "shared") {
        await this.#wait(0);
        continue;
      }
      failures += 1;
      await this.#wait(failures);
    }
  }

  #wait(failures) {
    return new Promise((resolve) => {
      this.#wake = resolve;
      const delayMs = failures ? retryDelayMs(failures, this.#retryMs) : POLL_MS;
      if (!this.#isSuspended) setTimeout(resolve, delayMs);
    });
  }

  #reportLoss() {
    if (!this.#isSuspended) this.on.connection(this.#activeAt);
  }

  #reportActivity() {
    this.#activeAt = Date.now();
    this.on.connection(null);
  }

  /** Read the stream, if this browser has a connection to spare; else "shared" after a poll. */
  async #readOrPoll(onConnected) {
    const free = await takeSlot();
    if (!free) return (await this.#poll()) ? "ended" : "shared";
    try {
      return await this.#read(onConnected);
    } finally {
      free();
    }
  }

  /** Fetch the order once more, if that is possible. */
  refresh() {
    if (!this.#isEnded && !this.#isSuspended) this.#poll().catch(() => {});
  }

  /** Read the stream until it ends: "ended", "aborted", or "polled" where only polling works. */
  async #read(onConnected) {
    const aborter = new AbortController();
    this.#abort = () => aborter.abort();
    let end = null; // the data of the end event
    const handlers = {
      resync: () => (this.lastId = ""),
      snapshot: this.on.snapshot,
      position: this.on.position,
      order: this.on.order,
      notice: this.on.notice,
      end: (data) => (end = data),
    };
    try {
      await readEventStream((signal) => this.#request(signal), {
        signal: aborter.signal,
        onActivity: () => {
          onConnected();
          this.#reportActivity();
        },
        onRetry: (ms) => (this.#retryMs = ms),
        onEvent: ({ event, id, data }) => {
          this.#noteId(id);
          handlers[event]?.(JSON.parse(data));
        },
      });
    } catch (error) {
      if (aborter.signal.aborted) return "aborted";
      if (error === LINK_NOT_FOUND) throw error;
    }
    if (end?.reason === "link_ended") throw LINK_NOT_FOUND;
    if (end) return "ended";
    this.#reportLoss();
    return (await this.#poll()) ? "ended" : "polled";
  }

  async #request(signal) {
    const resume = this.lastId ? `?last_event_id=${this.lastId}` : "";
    const response = await fetch(`${this.path}/stream${resume}`, { signal });
    if (response.status === 404) throw LINK_NOT_FOUND;
    if (response.status !== 200) throw new Error(`${response.status}`); // 204: the order has ended
    return response;
  }

  /** Fetch the order once; whether it has ended. */
  async #poll() {
    const response = await fetch(this.path, { signal: AbortSignal.timeout(RESPONSE_TIMEOUT_MS) });
    if (response.status === 404) throw LINK_NOT_FOUND;
    if (!response.ok) throw new Error(`${response.status}`);
    const track = await response.json();
    this.#reportActivity();
    this.on.snapshot(track);
    return FINAL_STATES.includes(track.state);
  }

  #noteId(id) {
    if (!id || id === this.lastId) return;
    this.lastId = id;
    this.ids.push(Number(id));
  }
}
