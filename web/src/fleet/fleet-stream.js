// The fleet's stream: follows one address at a time, and reconnects by itself.
import { fetchAsStaff, isSignedIn, showSignIn, Unauthorized } from "../api.js";
import { onPageCache, readEventStream, retryDelayMs } from "../event-stream.js";

const SIGN_IN_POLL_MS = 50;

/** `onFrame(kind, data)` gets each frame, `onConnection(lostSinceMs)` null while connected. */
export class FleetStream {
  #path = null;
  #aborter = null;
  #failures = 0;
  #retryMs = 0; // what the server asks for
  #activeAt = Date.now();
  #isSuspended = false;

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
  }

  async #run() {
    for (;;) {
      const path = this.#path;
      const isReady = path && isSignedIn() && !this.#isSuspended;
      if (isReady) {
        const aborter = (this.#aborter = new AbortController());
        await this.#read(path, aborter.signal);
        if (aborter.signal.aborted) continue; // another path, or suspended
        this.onConnection(this.#activeAt);
        this.#failures += 1;
      }
      const delayMs = isReady ? retryDelayMs(this.#failures, this.#retryMs) : SIGN_IN_POLL_MS;
      await new Promise((resolve) => setTimeout(resolve, delayMs));
    }
  }

  async #read(path, signal) {
    try {
      await readEventStream((timeout) => fetchAsStaff(path, { signal: timeout }), {
        signal,
        onActivity: () => (this.#activeAt = Date.now()),
        onRetry: (ms) => (this.#retryMs = ms),
        onEvent: ({ event, data }) => {
          this.#failures = 0;
          this.onConnection(null);
          this.onFrame(event, JSON.parse(data));
        },
      });
    } catch (error) {
      if (error instanceof Unauthorized) showSignIn();
    }
  }
}
