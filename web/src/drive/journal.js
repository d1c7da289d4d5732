// The journal in IndexedDB: each fix is durable from before it is sent until it is committed.
//
//   fixes   { seq, fix }, by seq
//   state   one row: { boot, lastSeq, pending, givenUp, rejected }
//
// Every change is one transaction, and resolves once that is on disk. A driver has a database of their
// own, so that two drivers of one phone keep their fixes apart.
const STATE = "state";

export class IndexedDbJournal {
  #name;
  #db;

  constructor(driverId) {
    this.#name = `doorstep-drive-${driverId}`;
  }

  /** Open it, with `boot` if it is new. Resolves to its state. */
  async open(boot) {
    const opening = indexedDB.open(this.#name, 1);
    opening.onupgradeneeded = () => {
      opening.result.createObjectStore("fixes", { keyPath: "seq" });
      const first = { boot, lastSeq: 0, pending: 0, givenUp: 0, rejected: 0 };
      opening.result.createObjectStore("state").put(first, STATE);
    };
    this.#db = await resultOf(opening);
    return resultOf(this.#db.transaction("state").objectStore("state").get(STATE));
  }

  /** Add a fix, and drop the `givenUp` oldest ones for it. */
  append(seq, fix, givenUp) {
    return this.#change(({ fixes, state }) => {
      fixes.add({ seq, fix });
      if (givenUp > 0) dropOldest(fixes, givenUp);
      changeState(state, (now) => {
        now.lastSeq = seq;
        now.pending += 1 - givenUp;
        now.givenUp += givenUp;
      });
    });
  }

  /** The oldest fixes, in the order of their seqs. */
  oldest(limit) {
    return resultOf(this.#db.transaction("fixes").objectStore("fixes").getAll(null, limit));
  }

  /** Remove fixes, and count the rejected ones. Resolves to the number that was still there. */
  async remove(seqs, rejected) {
    let removed = 0;
    await this.#change(({ fixes, state }) => {
      for (const seq of seqs) {
        fixes.count(seq).onsuccess = ({ target }) => {
          removed += target.result;
        };
        fixes.delete(seq);
      }
      changeState(state, (now) => {
        now.pending -= removed;
        now.rejected += rejected;
      });
    });
    return removed;
  }

  /** Begin a boot with `again` and all fixes but `settled`, numbered from 1. Resolves to the state. */
  async replaceBoot(boot, settled, again) {
    let next;
    await this.#change(({ fixes, state }) => {
      fixes.getAll().onsuccess = ({ target }) => {
        const rest = target.result.filter(({ seq }) => !settled.includes(seq));
        const kept = [...again, ...rest];
        fixes.clear();
        kept.forEach(({ fix }, n) => fixes.add({ seq: n + 1, fix }));
        changeState(state, (now) => {
          next = Object.assign(now, { boot, lastSeq: kept.length, pending: kept.length });
        });
      };
    });
    return next;
  }

  close() {
    this.#db.close();
  }

  #change(work) {
    const transaction = this.#db.transaction(["fixes", "state"], "readwrite", { durability: "strict" });
    return new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
      try {
        work({ fixes: transaction.objectStore("fixes"), state: transaction.objectStore("state") });
      } catch (error) {
        reject(error);
        transaction.abort();
      }
    });
  }
}

function dropOldest(fixes, count) {
  let left = count;
  fixes.openKeyCursor().onsuccess = ({ target }) => {
    const cursor = target.result;
    if (!cursor || left-- <= 0) return;
    fixes.delete(cursor.primaryKey);
    cursor.continue();
  };
}

function changeState(state, change) {
  state.get(STATE).onsuccess = ({ target }) => {
    change(target.result);
    state.put(target.result, STATE);
  };
}

function resultOf(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
