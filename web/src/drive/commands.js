// Commands that the driver gave: kept until the platform has answered, across reloads. Each has an
// idempotency key, so that sending it again is harmless.
import { request } from "./api.js";
import { randomName } from "./device.js";

const KEY = "doorstep-drive-commands";

const LOCKED = "/problems/pin-locked"; // waiting would hold what follows back for minutes

/** Whether to send the same again later. */
export function mustWait(answer) {
  const status = answer?.status ?? 0;
  if (status === 429 && answer.body?.type === LOCKED) return false;
  return status === 0 || status >= 500 || [401, 403, 408, 429].includes(status);
}

export class Commands {
  #waiting = JSON.parse(localStorage.getItem(KEY) ?? "[]");
  #sending = null;
  #onAnswer;

  /** `onAnswer(command, answer)` gets what is settled, accepted or refused. */
  constructor(onAnswer) {
    this.#onAnswer = onAnswer;
  }

  get waiting() {
    return this.#waiting;
  }

  /** Give a command: { kind, name, path, body, duty }. A new duty replaces one that waits. */
  add(command) {
    const isKept = ({ kind }, n) => n === 0 || kind !== "duty" || command.kind !== "duty"; // the first may be under way
    const kept = this.#waiting.filter(isKept);
    this.#store([...kept, { ...command, key: randomName() }]);
    return this.send();
  }

  /** Send what waits, in order, until there is no answer. */
  send() {
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = null;
    });
    return this.#sending;
  }

  clear() {
    this.#store([]);
  }

  async #sendAll() {
    while (this.#waiting.length > 0) {
      const [command] = this.#waiting;
      const answer = await request(command.path, {
        method: "POST",
        body: command.body,
        headers: { "Idempotency-Key": command.key },
      }).catch(() => null);
      if (mustWait(answer)) return;
      this.#store(this.#waiting.filter(({ key }) => key !== command.key));
      this.#onAnswer(command, answer);
    }
  }

  #store(waiting) {
    this.#waiting = waiting;
    localStorage.setItem(KEY, JSON.stringify(waiting));
  }
}
