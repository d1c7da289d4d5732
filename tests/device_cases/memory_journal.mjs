// A journal in memory, with the interface of web/src/drive/journal.js.
export class MemoryJournal {
  #state = null;
  #fixes = new Map();
  hasRoom = true;

  async open(boot) {
    this.#state ??= { boot, lastSeq: 0, pending: 0, givenUp: 0, rejected: 0 };
    return { ...this.#state };
  }

  async append(seq, fix, givenUp) {
    if (!this.hasRoom) throw Object.assign(new Error("full"), { name: "QuotaExceededError" });
    for (const oldest of this.seqs().slice(0, givenUp)) this.#fixes.delete(oldest);
    this.#fixes.set(seq, fix);
    this.#state.lastSeq = seq;
    this.#state.givenUp += givenUp;
    this.#count();
  }

  async oldest(limit) {
    return this.seqs().slice(0, limit).map((seq) => ({ seq, fix: this.#fixes.get(seq) }));
  }

  async remove(seqs, rejected) {
    const removed = seqs.filter((seq) => this.#fixes.delete(seq)).length;
    this.#state.rejected += rejected;
    this.#count();
    return removed;
  }

  async replaceBoot(boot, settled, again) {
    const rest = await this.oldest(Infinity);
    const kept = [...again, ...rest.filter(({ seq }) => !settled.includes(seq))];
    this.#fixes = new Map(kept.map(({ fix }, n) => [n + 1, fix]));
    Object.assign(this.#state, { boot, lastSeq: kept.length });
    this.#count();
    return { ...this.#state };
  }

  seqs() {
    return [...this.#fixes.keys()].sort((a, b) => a - b);
  }

  copy() {
    const copy = new MemoryJournal();
    copy.#state = { ...this.#state };
    copy.#fixes = new Map(this.#fixes);
    return copy;
  }

  #count() {
    this.#state.pending = this.#fixes.size;
  }
}
