// Requests to tracking_api as staff. The token is sent in a header, never in an address or a
// cookie: another site's page cannot send requests in our name.
const TOKEN = "doorstep-staff-token"; // the key in sessionStorage: removed with the tab
const RESPONSE_TIMEOUT_MS = 10_000;
const $ = (id) => document.getElementById(id);

/** The token is missing, invalid or revoked. */
export class Unauthorized extends Error {}

/** A refused request: `problem` is its document (RFC 9457). */
export class ApiProblem extends Error {
  constructor(problem, status) {
    super(problem.detail ?? `The status was ${status}.`);
    Object.assign(this, { problem, status });
  }
}

export const hasToken = () => Boolean(sessionStorage.getItem(TOKEN));
export const authorization = () => `Bearer ${sessionStorage.getItem(TOKEN)}`;

/** Take the token from the address (#token), the form, or the session. Calls `onSignIn` with each. */
export function startSignIn(onSignIn) {
  const signIn = (token) => {
    sessionStorage.setItem(TOKEN, token);
    $("sign-in").hidden = true;
    onSignIn();
  };
  const takeFromAddress = () => {
    const token = decodeURIComponent(location.hash.slice(1));
    if (!token) return false;
    history.replaceState(null, "", location.pathname + location.search);
    signIn(token);
    return true;
  };
  document.querySelector("#sign-in form").addEventListener("submit", (event) => {
    event.preventDefault();
    const token = new FormData(event.target).get("token").trim();
    event.target.reset();
    signIn(token);
  });
  addEventListener("hashchange", takeFromAddress);
  if (takeFromAddress()) return;
  if (hasToken()) onSignIn(); // reloaded, or from another page
  else showSignIn();
}

export function showSignIn(error = "") {
  sessionStorage.removeItem(TOKEN);
  $("sign-in-error").textContent = error;
  $("sign-in").hidden = false;
  document.querySelector("#sign-in input").focus();
}

/** Send a request as staff. Throws Unauthorized, ApiProblem, or what fetch throws. */
export async function fetchAsStaff(path, options = {}) {
  const response = await fetch(path, {
    signal: AbortSignal.timeout(RESPONSE_TIMEOUT_MS),
    ...options,
    headers: { Authorization: authorization(), ...options.headers },
  });
  if (response.status === 401 || response.status === 403) {
    throw new Unauthorized("This token is not valid.");
  }
  if (!response.ok) throw new ApiProblem(await response.json().catch(() => ({})), response.status);
  return response;
}

export const getJson = async (path) => (await fetchAsStaff(path)).json();

/** Run `job` every `ms`, less often after failures. Shows the sign-in form when unauthorized. */
export async function every(ms, job) {
  let failures = 0;
  for (;;) {
    try {
      if (hasToken()) await job();
      failures = 0;
    } catch (error) {
      if (error instanceof Unauthorized) showSignIn(error.message);
      failures = Math.min(failures + 1, 5);
    }
    await new Promise((resolve) => setTimeout(resolve, ms * (1 + failures * Math.random())));
  }
}
