// A bar across the page while what it shows is not live: since when, and that it tries again.
const AFTER_MS = 2500; // a break that heals at once is not worth a word

export class Offline {
  #since = 0; // when it broke, 0 while it is live

  constructor(bar) {
    this.bar = bar;
    setInterval(() => this.#draw(), 250);
  }

  /** Whether what is shown is live now. */
  live(isLive) {
    if (isLive) this.#since = 0;
    else this.#since ||= Date.now();
    if (isLive) this.#draw();
  }

  #draw() {
    const shows = this.#since > 0 && Date.now() - this.#since > AFTER_MS;
    if (shows === !this.bar.hidden) return;
    const since = new Date(this.#since).toLocaleTimeString([], { hour12: false });
    this.bar.textContent = shows ? `Not connected since ${since}: nothing new comes. Trying again…` : "";
    this.bar.hidden = !shows;
  }
}
