// The fleet's stream, read with fetch: EventSource can send no Authorization header.
import { authorization, hasToken, Refused, showTheDoor } from "./asking.js";

const SILENT_MS = 25_000; // a heartbeat comes every 10 s: the line is dead
const AGAIN_MS = 500; // for the first six seconds: a restart takes no longer
const QUICK_TRIES = 12;
const SLOWEST_AGAIN_MS = 10_000;

/** Follows one address at a time, for ever; `hear(kind, data)` gets each frame. */
export class Stream {
  #address = null;
  #aborter = null;
  #failures = 0;

  constructor({ hear, say }) {
    Object.assign(this, { hear, say });
    this.#run();
  }

  /** Follow this address from now on. */
  follow(address) {
    this.#address = address;
    this.#aborter?.abort();
  }

  async #run() {
    for (;;) {
      const address = this.#address;
      if (address && hasToken()) {
        try {
          await this.#read(address);
        } catch (error) {
          if (error instanceof Refused) showTheDoor(error.message);
        }
        if (address !== this.#address) continue; // at once: it is what was asked for
        this.say("reconnecting");
        this.#failures += 1;
      }
      const slower = 1.6 ** Math.max(0, this.#failures - QUICK_TRIES);
      const ms = Math.min(AGAIN_MS * slower, SLOWEST_AGAIN_MS);
      await new Promise((resolve) => setTimeout(resolve, address ? ms * (0.5 + Math.random()) : 50));
    }
  }

  async #read(address) {
    const aborter = (this.#aborter = new AbortController());
    let timer = setTimeout(() => aborter.abort(), SILENT_MS);
    try {
      const answer = await fetch(address, {
        headers: { Authorization: authorization() },
        signal: aborter.signal,
      });
      if (answer.status === 401 || answer.status === 403) {
        throw new Refused("This token is not good.");
      }
      if (!answer.ok) throw new Error(`${answer.status}`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let pieces = [];
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(() => aborter.abort(), SILENT_MS);
        pieces.push(value); // joined once a frame is whole: a snapshot comes in many pieces
        if (!value.includes("\n\n") && !(value[0] === "\n" && pieces.length > 1)) continue;
        const blocks = pieces.join("").split("\n\n");
        pieces = [blocks.pop()];
        for (const block of blocks) this.#take(block);
      }
    } finally {
      clearTimeout(timer);
      aborter.abort();
    }
  }

  #take(block) {
    let kind = "";
    let data = "";
    for (const line of block.split("\n")) {
      if (line.startsWith("event: ")) kind = line.slice(7);
      else if (line.startsWith("data: ")) data += line.slice(6);
    }
    if (!kind) return;
    this.#failures = 0;
    this.say("live");
    this.hear(kind, JSON.parse(data));
  }
}
