// Which fixes of the phone are worth sending, as `device/sampling` does: the modes `all` and `time`, by
// the fixes' own time.
export const POLICY = { mode: "time", every_s: 4, heartbeat_s: 30, keep_every_s: 4 };

export class Sampler {
  #policy;
  #last = null; // the one last sent, and the one last observed: instants in seconds
  #previous = null;
  #kept = []; // sent along with the next one
  #keptAt = 0;

  constructor(policy = POLICY) {
    this.#policy = policy;
  }

  /** The fixes to send now, oldest first, given a new one. */
  observe(fix) {
    const now = fix.fix_at / 1000;
    const [last, previous] = [this.#last, this.#previous];
    this.#previous = now;
    if (last === null || now <= previous) return this.#send(fix, now); // the clock was set back
    // Send now if waiting for one more fix, at the same interval, would miss the heartbeat.
    const isOverdue = now + (now - previous) - last > this.#policy.heartbeat_s;
    const isNews = this.#policy.mode === "all" || now - last >= this.#policy.every_s;
    if (isOverdue || isNews) return this.#send(fix, now);
    const { keep_every_s: keepS } = this.#policy;
    if (keepS > 0 && now - this.#keptAt >= keepS) {
      this.#kept.push(fix);
      this.#keptAt = now;
    }
    return [];
  }

  #send(fix, now) {
    const due = [...this.#kept, fix];
    [this.#last, this.#kept, this.#keptAt] = [now, [], now];
    return due;
  }
}
