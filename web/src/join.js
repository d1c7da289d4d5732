// The page to join: trades an invitation's token, which follows # in the address, for what sets this
// phone up, and shows when the first position has arrived.
//
// Installing an app may end this tab, so the state is kept in the tab's storage: the token until it
// is used, then what the server answered, until the phone has reported.
import { el } from "./elements.js";
import { LANGUAGE, text } from "./join-texts.js";

const RESPONSE_TIMEOUT_MS = 10_000;
const POLL_MS = 2_000;
const STATE = "doorstep-join";
const STORES = {
  owntracks: {
    android: "https://play.google.com/store/apps/details?id=org.owntracks.android",
    ios: "https://apps.apple.com/app/owntracks/id692424691",
  },
  traccar: {
    android: "https://play.google.com/store/apps/details?id=org.traccar.client",
    ios: "https://apps.apple.com/app/traccar-client/id843156974",
  },
};
const $ = (selector) => document.querySelector(selector);
let platform = /iPhone|iPad|Macintosh/.test(navigator.userAgent) ? "ios" : "android";

function readState() {
  return JSON.parse(sessionStorage.getItem(STATE) ?? "{}");
}

function keep(state) {
  sessionStorage.setItem(STATE, JSON.stringify(state));
}

function showError(name) {
  $("#error").textContent = name ? text(name) : "";
  $("#error").hidden = !name;
}

/** Use the invitation. Returns the answer, or undefined after showing what went wrong. */
async function join(token, app) {
  showError("");
  try {
    const response = await fetch("/join", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token, app }),
      signal: AbortSignal.timeout(RESPONSE_TIMEOUT_MS),
    });
    if (response.ok) return { app, ...(await response.json()) };
    showError({ 404: "spent", 429: "many" }[response.status] ?? "away");
  } catch {
    showError("away");
  }
}

function choice(app, token) {
  const button = el("button", { type: "button" }, app === "browser" ? text("useBrowser") : text("use", { app: text(app) }));
  button.addEventListener("click", async () => {
    for (const one of document.querySelectorAll("#choices button")) one.disabled = true;
    const joined = await join(token, app);
    for (const one of document.querySelectorAll("#choices button")) one.disabled = false;
    if (!joined) return;
    if (app === "browser") {
      sessionStorage.removeItem(STATE);
      return location.assign("/drive");
    }
    keep({ joined });
    show();
  });
  const words = [el("h2", {}, text(app)), el("p", { class: "muted" }, text(`${app}Why`))];
  return el("section", { class: "choice", id: `choice-${app}` }, ...words, button);
}

function step(name, app) {
  const [before, after] = text(name).split("%1");
  if (after === undefined) return el("li", {}, before);
  const link = el("a", { href: STORES[app][platform], target: "_blank", rel: "noreferrer" }, text(app));
  return el("li", {}, before, link, after);
}

function platforms() {
  const names = { android: "Android", ios: "iPhone" };
  const buttons = Object.entries(names).map(([name, label]) => {
    const button = el("button", { type: "button", "aria-pressed": String(name === platform) }, label);
    button.addEventListener("click", () => {
      platform = name;
      show();
    });
    return button;
  });
  return el("div", { class: "platforms", role: "group" }, ...buttons);
}

function configureLink(app, href) {
  return el("a", { class: "button", href }, text("configure", { app: text(app) }));
}

/** To install an app, and to allow it the location. */
function firstSteps(app) {
  return platform === "ios"
    ? [step("installIos", app), step("locationIos")]
    : [step("installAndroid", app), step("locationAndroid")];
}

function owntracksSteps({ http_link: http, mqtt_link: mqtt }) {
  return [
    el(
      "ol",
      {},
      ...firstSteps("owntracks"),
      step("external"),
      el("li", {}, text("back"), configureLink("owntracks", http)),
      step("confirm"),
    ),
    el(
      "details",
      {},
      el("summary", {}, text("mqtt")),
      el("p", { class: "muted" }, text("mqttWhy")),
      configureLink("owntracks", mqtt),
    ),
  ];
}

function traccarSteps({ link, qr_svg: qr, url, device_id: device }) {
  const code = el("div", { class: "qr" });
  code.innerHTML = qr;
  return [
    el(
      "ol",
      {},
      ...firstSteps("traccar"),
      el("li", {}, text("back"), configureLink("traccar", link)),
      step("start"),
    ),
    el("p", { class: "muted" }, text("scan")),
    code,
    el(
      "dl",
      {},
      el("dt", {}, text("address")),
      el("dd", { class: "mono" }, url),
      el("dt", {}, text("device")),
      el("dd", { class: "mono" }, device),
    ),
  ];
}

/** Poll until the first position has arrived. What set the phone up is then forgotten. */
async function waitForPosition(followToken) {
  for (;;) {
    try {
      const response = await fetch("/join/position", {
        headers: { Authorization: `Bearer ${followToken}` },
        signal: AbortSignal.timeout(RESPONSE_TIMEOUT_MS),
      });
      if (response.status === 404) return sessionStorage.removeItem(STATE); // a day has passed
      if (response.ok && (await response.json()).has_position) break;
    } catch {
      // the network is away: tried again
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  sessionStorage.removeItem(STATE);
  const open = el("a", { class: "button", href: "/drive" }, text("open"));
  $("#sign").replaceChildren(text("seen"), open);
  $("#sign").classList.add("good");
}

let isWaiting = false;

function show() {
  const { token, joined } = readState();
  $("h1").textContent = document.title = joined ? text("hello", { name: joined.name }) : text("title");
  $("#choices").hidden = !token || Boolean(joined);
  $("#setup").hidden = $("#sign").hidden = !joined;
  if (joined) {
    const { app, owntracks, traccar } = joined;
    const steps = app === "owntracks" ? owntracksSteps(owntracks) : traccarSteps(traccar);
    $("#setup").replaceChildren(el("h2", {}, text(app)), platforms(), ...steps);
    if (isWaiting) return;
    isWaiting = true;
    $("#sign").textContent = text("waiting");
    waitForPosition(joined.follow_token);
  } else if (token) {
    const choices = ["owntracks", "traccar", "browser"].map((app) => choice(app, token));
    $("#choices").replaceChildren(el("p", { class: "muted" }, text("once")), ...choices);
  } else {
    showError("missing");
  }
}

/** Take the token from the address, which it leaves at once. */
function takeFromAddress() {
  const token = decodeURIComponent(location.hash.slice(1));
  if (token) {
    history.replaceState(null, "", location.pathname);
    keep({ token });
    showError("");
  }
}

document.documentElement.lang = LANGUAGE;
takeFromAddress();
addEventListener("hashchange", () => location.reload());
show();
