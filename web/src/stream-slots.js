// A browser opens six connections to a server at once over HTTP/1.1, for all of its tabs. A stream
// takes one for as long as it lasts, so a few tabs stream and further ones poll.
const SLOTS = 3;

/** Take a slot for a stream. Returns a function that frees it; null if all are taken. */
export async function takeSlot() {
  const [{ nextHopProtocol } = {}] = performance.getEntriesByType("navigation");
  if (!navigator.locks || /^h[23]/.test(nextHopProtocol ?? "")) return () => {};
  for (let n = 0; n < SLOTS; n += 1) {
    const free = await lock(`doorstep-stream-${n}`);
    if (free) return free;
  }
  return null;
}

function lock(name) {
  return new Promise((resolve) => {
    navigator.locks
      .request(name, { ifAvailable: true }, (held) => {
        if (!held) return resolve(null);
        return new Promise((free) => resolve(free));
      })
      .catch(() => resolve(() => {})); // refused by the browser: there is nothing to share with
  });
}
