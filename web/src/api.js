// Requests to tracking_api as staff. The browser adds the session's cookie, which scripts cannot
// read; the server accepts it for changes from this site's pages only.
import { language, say } from "./texts.js";

const RESPONSE_TIMEOUT_MS = 10_000;
const SESSION_AGAIN_MS = 2000;
let isLeaving = false; // for the sign-in page

/** Shows answers in the order of their requests: one that a later one or a change overtook is dropped. */
export class AnswerOrder {
  #requests = 0;
  #shown = 0; // the newest request whose answer is shown

  /** Begin a request. What it returns says, once, whether the answer may be shown. */
  begin() {
    const mine = (this.#requests += 1);
    return () => {
      if (mine <= this.#shown) return false;
      this.#shown = mine;
      return true;
    };
  }

  /** After a change, answers to what was requested before it are old. */
  dropRequested() {
    this.#shown = this.#requests;
  }
}

/** The session is missing, has ended, or was revoked. */
export class Unauthorized extends Error {}

/** A refused request: `problem` is its document (RFC 9457). */
export class ApiProblem extends Error {
  constructor(problem, status) {
    super(problem.detail ?? say("The status was {}.", status));
    Object.assign(this, { problem, status });
  }
}

export const isSignedIn = () => !isLeaving;

/** What is said of the session; a page in more languages than the staff's has its own. */
const SESSION_TEXTS = {
  signedIn: (name, role) => say("Signed in as {} ({})", name, language === "en" ? role : say(`role ${role}`)),
  notSignedOut: () => say("Not signed out: try again"),
};

/** Start the page. Sends a token in the address (#token) to the sign-in page first. */
export function startSession(onSignIn, onSession = () => {}, onFailure = () => {}, texts = SESSION_TEXTS) {
  const sendToken = () => {
    const { pathname, search, hash } = location;
    if (!hash.startsWith("#stf_")) return false;
    isLeaving = true;
    location.replace(`/sign-in?next=${encodeURIComponent(pathname + search)}${hash}`);
    return true;
  };
  addEventListener("hashchange", sendToken);
  document.getElementById("sign-out").addEventListener("click", ({ target }) => signOut(target, texts));
  if (sendToken()) return;
  onSignIn();
  readSession(onFailure).then((session) => {
    if (!session) return;
    const { name, role } = session;
    document.getElementById("sign-out").title = texts.signedIn(name, role);
    for (const link of document.querySelectorAll("[data-for-admins]")) link.hidden = role !== "admin";
    onSession(session);
  });
}

/** Read the session, again after a failure: what the page may show depends on it. Null without one. */
async function readSession(onFailure) {
  for (;;) {
    try {
      return await getJson("/session");
    } catch (error) {
      onFailure(error);
      if (error instanceof Unauthorized) return null;
      await new Promise((resolve) => setTimeout(resolve, SESSION_AGAIN_MS));
    }
  }
}

/** Leave for the sign-in page, which comes back here. */
export function showSignIn() {
  if (isLeaving) return;
  isLeaving = true;
  const next = encodeURIComponent(location.pathname + location.search);
  location.replace(`/sign-in?next=${next}&ended`);
}

async function signOut(button, texts) {
  try {
    await fetchAsStaff("/session", { method: "DELETE" });
  } catch (error) {
    if (!(error instanceof Unauthorized)) {
      button.textContent = texts.notSignedOut();
      return;
    }
  }
  isLeaving = true;
  location.replace("/sign-in");
}

/** Send a request as staff. Throws Unauthorized, ApiProblem, or what fetch throws. */
export async function fetchAsStaff(path, options = {}) {
  const response = await fetch(path, {
    signal: AbortSignal.timeout(RESPONSE_TIMEOUT_MS),
    ...options,
  });
  if (response.status === 401) throw new Unauthorized(say("The session has ended."));
  if (!response.ok) throw new ApiProblem(await response.json().catch(() => ({})), response.status);
  return response;
}

export const getJson = async (path) => (await fetchAsStaff(path)).json();

/** Run `job` every `ms`, less often after failures. Leaves for the sign-in page when unauthorized. */
export async function every(ms, job) {
  let failures = 0;
  for (;;) {
    try {
      if (isSignedIn()) await job();
      failures = 0;
    } catch (error) {
      if (error instanceof Unauthorized) showSignIn();
      failures = Math.min(failures + 1, 5);
    }
    await new Promise((resolve) => setTimeout(resolve, ms * (1 + failures * Math.random())));
  }
}
