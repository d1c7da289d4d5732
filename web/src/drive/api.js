// Requests of the page to driver_api. All lie below /drive, and so does the session's cookie.
const RESPONSE_TIMEOUT_MS = 15_000;

/** Send a request. Resolves to { status, retryAfterS, serverMs, body }; rejects without an answer. */
export async function request(path, { method = "GET", body, blob, headers = {} } = {}) {
  const response = await fetch(`/drive${path}`, {
    method,
    headers: { ...(body && { "Content-Type": "application/json" }), ...(blob && { "Content-Type": blob.type }), ...headers },
    body: blob ?? (body && JSON.stringify(body)),
    cache: "no-store",
    signal: AbortSignal.timeout(RESPONSE_TIMEOUT_MS),
  });
  return {
    status: response.status,
    retryAfterS: Number(response.headers.get("Retry-After")) || 0,
    serverMs: Date.parse(response.headers.get("Date")) || Date.now(),
    body: await response.json().catch(() => null),
  };
}

/** Send a batch of fixes, as the device wants it. */
export async function sendFixes(driverId, fixes) {
  const answer = await request(`/drivers/${driverId}/locations`, { method: "POST", body: { fixes } });
  return { ...answer, outcomes: answer.body?.outcomes?.map(({ outcome }) => outcome) };
}
