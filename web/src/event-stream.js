// Server-sent events over fetch. EventSource sends no Authorization header, hides heartbeats, and
// has no time-out: it does not detect a frozen server.

const CONNECT_TIMEOUT_MS = 10_000;
const SILENCE_MS = 25_000; // the server sends a heartbeat every 10 s

const RETRY_MS = 500; // for the first six seconds: a restart takes no longer
const QUICK_RETRIES = 12;
const MAX_RETRY_MS = 10_000;

/**
 * The delay before a retry, random so that a restarted server is not hit by all clients at once.
 * `serverMs` is what the last stream's `retry` field says, which the server draws.
 */
export function retryDelayMs(failures, serverMs = 0) {
  if (serverMs && failures <= QUICK_RETRIES) return serverMs;
  const backoff = 1.6 ** Math.max(0, failures - QUICK_RETRIES);
  return Math.min(RETRY_MS * backoff, MAX_RETRY_MS) * (0.5 + Math.random());
}

/**
 * Read an event stream until it ends or `signal` aborts it. Throws on a network error, on 10 s
 * without a response, and on 25 s of silence.
 *
 *   request(signal)  sends the request; throws on a status that is not a stream
 *   onEvent({ event, id, data })
 *   onActivity()     is called for all data, heartbeats included
 *   onRetry(ms)      the delay before a retry that the server asks for
 */
export async function readEventStream(request, { onEvent, onActivity = () => {}, onRetry, signal }) {
  const controller = new AbortController(); // AbortSignal.any is missing in browsers before 2024
  const abort = (reason) => controller.abort(reason);
  const onAbort = () => abort(signal.reason);
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort);
  let timer = setTimeout(abort, CONNECT_TIMEOUT_MS, new Error("no response"));
  try {
    const response = await request(controller.signal);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let pieces = []; // joined once an event is complete: a snapshot arrives in many pieces
    for (;;) {
      clearTimeout(timer);
      timer = setTimeout(abort, SILENCE_MS, new Error("silence"));
      const { value, done } = await reader.read();
      if (done) return;
      onActivity();
      pieces.push(value);
      if (!value.includes("\n\n") && !(value[0] === "\n" && pieces.length > 1)) continue;
      const blocks = pieces.join("").split("\n\n");
      pieces = [blocks.pop()];
      for (const block of blocks) {
        const event = parseEvent(block);
        if (event.retry) onRetry?.(Number(event.retry));
        if (event.data) dispatch(onEvent, event);
      }
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
    abort(); // closes the connection
  }
}

/** Call a handler. Its exception is reported as uncaught, and does not end the stream. */
function dispatch(handler, event) {
  try {
    handler(event);
  } catch (error) {
    setTimeout(() => {
      throw error;
    });
  }
}

function parseEvent(block) {
  const event = { data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon < 1) continue;
    const [name, value] = [line.slice(0, colon), line.slice(colon + 2)];
    event[name] = name === "data" ? event.data + value : value;
  }
  return event;
}

/** Call `suspend` when the page enters the back/forward cache, and `resume` when it leaves it. */
export function onPageCache(suspend, resume) {
  addEventListener("pagehide", (event) => event.persisted && suspend());
  addEventListener("pageshow", (event) => event.persisted && resume());
}
