// One order's stream: it comes back by itself, and each event is heard once.

const SILENT_MS = 45_000; // a courier reports every 30 s at least: the line may be dead
const STALE_MS = 15_000; // a phone that was put away may have lost its line without a word
const AGAIN_MS = 500; // for the first six seconds: a restart takes no longer
const QUICK_TRIES = 12;
const SLOWEST_AGAIN_MS = 10_000;

/** The link leads nowhere (any more). */
export const GONE = new Error("404");

/**
 * Follow an order until it ends. `on` has:
 *   snapshot(track), position(news), order(event)   as the API sends them
 *   trouble(isThere)                                 whether the line is broken
 */
export class OrderStream {
  constructor(address, on) {
    Object.assign(this, { address, on });
    this.lastId = ""; // of the newest event heard: where the stream goes on after a break
    this.ids = []; // all of them, as they came
    this.heardAt = 0;
    this.hurry = () => {}; // ends a wait
    this.reopen = () => {}; // gives up a line that may be dead
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.hurry();
      if (performance.now() - this.heardAt > STALE_MS) this.reopen();
    });
  }

  /** Resolves when the order has ended; throws GONE. `open` is called until it succeeds once. */
  async follow(open) {
    let opened = false;
    for (let failures = 0; ; ) {
      try {
        if (!opened) await open();
        opened = true;
        if (await this.#listen(() => (failures = 0))) return;
      } catch (error) {
        if (error === GONE) throw error;
        failures += 1;
        this.on.trouble(true);
      }
      await this.#wait(failures);
    }
  }

  /** Not all at once: a server that comes back has everybody at its door. */
  #wait(failures) {
    const slower = 1.6 ** Math.max(0, failures - QUICK_TRIES);
    const wait = Math.min(AGAIN_MS * slower, SLOWEST_AGAIN_MS) * (0.5 + Math.random());
    return new Promise((resolve) => {
      this.hurry = resolve;
      setTimeout(resolve, wait);
    });
  }

  /** Listen until the order ends (true) or the line falls silent (false). Throws when it breaks. */
  #listen(heard) {
    const resume = this.lastId ? `?last_event_id=${this.lastId}` : "";
    const source = new EventSource(`${this.address}/stream${resume}`);
    return new Promise((resolve, reject) => {
      let opened = false;
      let silence;
      const over = (settle, outcome) => {
        clearTimeout(silence);
        source.close();
        settle(outcome);
      };
      this.reopen = () => over(resolve, false);
      const on = (kind, take) =>
        source.addEventListener(kind, (message) => {
          heard();
          this.heardAt = performance.now();
          this.on.trouble(false);
          clearTimeout(silence);
          silence = setTimeout(this.reopen, SILENT_MS);
          this.#note(message.lastEventId);
          take(JSON.parse(message.data));
        });
      on("resync", () => (this.lastId = ""));
      on("snapshot", this.on.snapshot);
      on("position", this.on.position);
      on("order", this.on.order);
      on("end", ({ reason }) =>
        reason === "link_ended" ? over(reject, GONE) : over(resolve, true),
      );
      source.addEventListener("open", () => (opened = true));
      source.addEventListener("error", async () => {
        source.close();
        if (opened) return over(reject, new Error("broken"));
        // The browser does not tell why it did not open: ask in another way.
        const answer = await fetch(this.address).catch(() => null);
        if (!answer?.ok) return over(reject, answer?.status === 404 ? GONE : new Error("broken"));
        const track = await answer.json();
        this.on.snapshot(track);
        const ended = ["delivered", "cancelled", "failed"].includes(track.state);
        over(ended ? resolve : reject, ended || new Error("broken"));
      });
    });
  }

  #note(id) {
    if (!id || id === this.lastId) return;
    this.lastId = id;
    this.ids.push(Number(id));
  }
}
