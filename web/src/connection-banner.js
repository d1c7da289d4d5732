// A banner across the page while its data is not live: since when, and that it retries.
import { say } from "./texts.js";
import { clockWithSeconds } from "./times.js";

const SHOW_AFTER_MS = 2500; // shorter interruptions are not shown

export class ConnectionBanner {
  #lostSince = 0; // 0 while connected
  #timer = 0;

  constructor(banner) {
    this.banner = banner;
  }

  /** `lostSinceMs` is the instant of the last data; null while connected. */
  update(lostSinceMs) {
    if (lostSinceMs === null) {
      clearTimeout(this.#timer);
      this.#timer = this.#lostSince = 0;
      if (!this.banner.hidden) this.banner.textContent = "";
      this.banner.hidden = true;
      return;
    }
    this.#lostSince ||= lostSinceMs;
    this.#timer ||= setTimeout(
      () => {
        this.banner.textContent = say("No connection to the server since {}. Retrying…", clockWithSeconds(this.#lostSince));
        this.banner.hidden = false;
      },
      Math.max(0, this.#lostSince + SHOW_AFTER_MS - Date.now()),
    );
  }
}
