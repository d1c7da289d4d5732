// The fleet's stream: follows one address at a time, and reconnects by itself.
import { fetchAsStaff, isSignedIn, showSignIn, Unauthorized } from "../api.js";
import { takeSlot } from "../stream-slots.js";
import { onPageCache, readEventStream, retryDelayMs } from "../event-stream.js";

const SIGN_IN_POLL_MS = 50;
const SNAPSHOT_POLL_MS = 4000; // while other tabs have all the streams

/** `onFrame(kind, data)` gets each frame, `onConnection(lostSinceMs)` null while connected. */
export class FleetStream {
  #path = null;
  #aborter = null;
  #failures = 0;
  #retryMs = 0; // what the server asks for
  #activeAt = Date.now();
  #isSuspended = false;
  #wake = () => {}; // ends a pause

  constructor({ onFrame, onConnection }) {
    Object.assign(this, { onFrame, onConnection });
    onPageCache(
      () => {
        this.#isSuspended = true;
        this.#aborter?.abort();
      },
      () => (this.#isSuspended = false),
    );
    this.#run();
  }

  /** Follow this path from now on. */
  follow(path) {
    this.#path = path;
    this.#aborter?.abort();
    this.#wake();
  }

  async #run() {
    for (;;) {
      const path = this.#path;
      const isReady = path && isSignedIn() && !this.#isSuspended;
      if (isReady) {
        const aborter = (this.#aborter = new AbortController());
        const free = await takeSlot();
        const isPolled = !free;
        const isRead = await this.#read(path, aborter.signal, isPolled).finally(free ?? (() => {}));
        if (aborter.signal.aborted) continue; // another path, or suspended
        if (isPolled && isRead) {
          await this.#pause(SNAPSHOT_POLL_MS);
          continue;
        }
        this.onConnection(this.#activeAt);
        this.#failures += 1;
      }
      const delayMs = isReady ? retryDelayMs(this.#failures, this.#retryMs) : SIGN_IN_POLL_MS;
      await this.#pause(delayMs);
    }
  }

  /** Wait, or until another path is followed. */
  #pause(ms) {
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, ms);
    });
  }

  /** Read the stream; of one that is polled, only the snapshot. Returns whether that was read. */
  async #read(path, signal, isPolled) {
    const polled = new AbortController();
    const abort = () => polled.abort();
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort);
    try {
      await readEventStream((timeout) => fetchAsStaff(path, { signal: timeout }), {
        signal: polled.signal,
        onActivity: () => (this.#activeAt = Date.now()),
        onRetry: (ms) => (this.#retryMs = ms),
        onEvent: ({ event, data }) => {
          this.#failures = 0;
          this.onConnection(null);
          this.onFrame(event, JSON.parse(data));
          if (isPolled && event === "snapshot") abort();
        },
      });
    } catch (error) {
      if (error instanceof Unauthorized) showSignIn();
    }
    signal.removeEventListener("abort", abort);
    return polled.signal.aborted;
  }
}
