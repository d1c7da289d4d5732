// The sign-in page: trades a staff token for a session, which the browser keeps as a cookie that
// scripts cannot read. The token comes from the form, or from the address (#token).
import { loadItalian, say, translatePage } from "./texts.js";

const RESPONSE_TIMEOUT_MS = 10_000;
const RESTAURANT_PAGE = "/restaurant";
const $ = (selector) => document.querySelector(selector);
const form = $("form");
const button = $("button");
// The form works at once: a token that is sent before the script listens would get into the address.
const isTranslated = loadItalian(() => import("./sign-in/texts-it.js")).then(translatePage, () => {});

/** The page of this site to go to: `next` of the address, else the fleet's. */
function nextPath() {
  const url = new URL(new URLSearchParams(location.search).get("next") ?? "/fleet", location.origin);
  const isOurs = url.origin === location.origin && url.pathname !== location.pathname;
  // A path that begins with // (`/.//host/`) would be an address of another site.
  return isOurs && !url.pathname.startsWith("//") ? url.pathname + url.search : "/fleet";
}

/** A restaurant's staff have one page, which is theirs alone. */
function pathFor({ role }) {
  if (role === "restaurant") return RESTAURANT_PAGE;
  const path = nextPath();
  return path.startsWith(RESTAURANT_PAGE) ? "/fleet" : path;
}

/** What went wrong, and what to do about it. */
function explain(response) {
  if (response.status === 429) {
    return say("Too many attempts. Try again in {} s.", response.headers.get("Retry-After"));
  }
  if (response.status === 403) {
    return say("The server does not accept pages from {}. Open its own address.", location.origin);
  }
  if (response.status >= 500) return say("The server cannot check the token now. Try again in a moment.");
  return say("This token is not valid: it is mistyped, expired or revoked. An admin can replace it.");
}

async function signIn(token) {
  button.disabled = true;
  $("#error").textContent = "";
  try {
    const response = await fetch("/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
      signal: AbortSignal.timeout(RESPONSE_TIMEOUT_MS),
    });
    if (response.ok) return location.replace(pathFor(await response.json()));
    $("#error").textContent = explain(response);
  } catch {
    $("#error").textContent = say("The server does not answer. Check the connection and try again.");
  }
  button.disabled = false;
  $("input").focus();
}

/** Sign in with the token of the address, which leaves the address and the history at once. */
function takeFromAddress() {
  const token = decodeURIComponent(location.hash.slice(1));
  if (!token) return false;
  history.replaceState(null, "", location.pathname + location.search);
  signIn(token);
  return true;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const token = new FormData(form).get("token").trim();
  form.reset();
  signIn(token);
});
addEventListener("hashchange", takeFromAddress);
if (new URLSearchParams(location.search).has("ended")) {
  isTranslated.then(() => {
    $("#reason").textContent = say("Your session has ended. Sign in again to continue.");
    $("#reason").hidden = false;
  });
}
if (!takeFromAddress()) $("input").focus();
