// Asking tracking_api as staff. The token stands in a header of each request, never in an address
// that is asked for and never in a cookie: another site's page can send nothing in our name.
const TOKEN = "doorstep-staff-token"; // its name in sessionStorage: gone with the tab
const ANSWER_WITHIN_MS = 10_000;
const $ = (id) => document.getElementById(id);

export class Refused extends Error {}

/** An answer that says no: `problem` is its document (RFC 9457). */
export class Problem extends Error {
  constructor(problem, status) {
    super(problem.detail ?? `${status}`);
    Object.assign(this, { problem, status });
  }
}

export const hasToken = () => Boolean(sessionStorage.getItem(TOKEN));
export const authorization = () => `Bearer ${sessionStorage.getItem(TOKEN)}`;

/** The door: a token from the address's #token, typed in, or from before. `opened` is called with each. */
export function watchTheDoor(opened) {
  const enter = (token) => {
    sessionStorage.setItem(TOKEN, token);
    $("door").hidden = true;
    opened();
  };
  const adoptHash = () => {
    const token = decodeURIComponent(location.hash.slice(1));
    if (!token) return false;
    history.replaceState(null, "", location.pathname + location.search);
    enter(token);
    return true;
  };
  document.querySelector("#door form").addEventListener("submit", (event) => {
    event.preventDefault();
    const token = new FormData(event.target).get("token").trim();
    event.target.reset();
    enter(token);
  });
  addEventListener("hashchange", adoptHash);
  if (adoptHash()) return;
  if (hasToken()) opened(); // loaded again, or come back from another page
  else showTheDoor();
}

export function showTheDoor(trouble = "") {
  sessionStorage.removeItem(TOKEN);
  $("trouble").textContent = trouble;
  $("door").hidden = false;
  document.querySelector("#door input").focus();
}

/** A request as staff; the answer, whatever its body. Raises Refused, Problem, or what fetch does. */
export async function fetchAsStaff(path, options = {}) {
  const answer = await fetch(path, {
    signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    ...options,
    headers: { Authorization: authorization(), ...options.headers },
  });
  if (answer.status === 401 || answer.status === 403) throw new Refused("This token is not good.");
  if (!answer.ok) throw new Problem(await answer.json().catch(() => ({})), answer.status);
  return answer;
}

export const ask = async (path) => (await fetchAsStaff(path)).json();

/** Ask again and again, a little later after each failure; the door opens when we are refused. */
export async function every(ms, job) {
  let failures = 0;
  for (;;) {
    try {
      if (hasToken()) await job();
      failures = 0;
    } catch (error) {
      if (error instanceof Refused) showTheDoor(error.message);
      failures = Math.min(failures + 1, 5);
    }
    await new Promise((resolve) => setTimeout(resolve, ms * (1 + failures * Math.random())));
  }
}
