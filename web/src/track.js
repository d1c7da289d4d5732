// The customer's page: exchanges the link's token for a cookie, then follows the order's stream. The
// texts come by the phone's language. The map's code, thirty times as large, and what a customer can do
// are loaded when the order's state is shown.
import { el, fill } from "./elements.js";
import { loadMapCode } from "./map-loader.js";
import { LINK_NOT_FOUND, OrderStream } from "./order-stream.js";
import { ago, clock, loadTexts, text, useZone } from "./track/language.js";
import { describeEta, isEarly, notices, sentence } from "./track/sentence.js";

const $ = (id) => document.getElementById(id);
const orderId = location.pathname.split("/").pop();
const orderPath = `/track/${encodeURIComponent(orderId)}`;

const STEPS = [["created"], ["confirmed", "assigned", "at_restaurant"], ["picked_up", "arriving", "at_customer"], ["delivered"]];
const FINAL_STATES = ["delivered", "cancelled", "failed"];
const TRACKED_STATES = ["assigned", "at_restaurant", "picked_up", "arriving"]; // believed with a position alone
const COLOURS = { live: "#2f6fed", recent: "#2f6fed", stale: "#b86e00", lost: "#6d747e" };
const LOST_AFTER_S = 300;
const MAX_AGES_S = [["live", 15], ["recent", 60], ["stale", LOST_AFTER_S], ["lost", Infinity]];
const MAX_COUNTED_AGE_S = 60; // of a position: from then on the estimate is not counted down
const LOAD_AGAIN_MS = 10_000;
const REFRESH_MS = 60_000; // the stream brings no estimate before there is a position

let orderMap = null; // until its code is loaded, and where the browser cannot draw one
let actions = null;
const requested = new Set();
let track = null; // the answer of GET /track, kept up to date by the stream
let receivedAt = 0; // of the last position or snapshot
let lostSince = null; // while there is no connection: the instant of the last data

const texts = retried(loadTexts);
const stream = new OrderStream(orderPath, {
  async snapshot(newTrack) {
    receivedAt = Date.now();
    track = newTrack;
    orderMap?.replace(track, colour());
    await texts;
    draw();
    load("map", openMap);
    load("actions", openActions);
    actions?.update(track);
    load("zone", findZone);
  },
  position: update,
  order({ order_id, assignment_no, position, eta, route, ...event }) {
    if (track.events.some((one) => one.order_seq === event.order_seq)) return; // in the snapshot
    track.events.push(event);
    const { state, order_seq } = event;
    const visible = position === undefined ? {} : { position, eta, route }; // with the newest event only
    update({ state, order_seq, assignment_no, ...visible });
    if (position !== undefined) stream.refresh(); // for what a stream does not bring
  },
  notice({ late_by_s, nearby_at }) {
    update({ late_by_s, nearby_at });
  },
  connection(since) {
    lostSince = since;
    setText("connection", since === null ? "" : text("disconnected", { time: clock(since, { withSeconds: true }) }));
    draw();
  },
});
globalThis.doorstepEvents = stream.ids; // for the console and the browser tests

/** Repeat what fails for want of a connection. */
async function retried(load) {
  for (;;) {
    try {
      return await load();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

/** Load a part of the page once; after a failure again, with the next snapshot at the latest. */
async function load(name, open) {
  if (requested.has(name)) return;
  requested.add(name);
  try {
    if ((await open()) === false) requested.delete(name);
  } catch {
    requested.delete(name); // the page works without it
    setTimeout(load, LOAD_AGAIN_MS, name, open); // an ended order has no further snapshot
  }
}

async function openMap() {
  if (!track.destination && !track.position) return false; // shared, and there is nothing to show yet
  document.body.classList.remove("no-map");
  try {
    const { OrderMap } = await loadMapCode($("map"), track);
    const names = { door: text("door"), restaurant: text("restaurant") };
    orderMap = drawnOrNull(() => new OrderMap(orderPath, track, colour(), names));
  } finally {
    document.body.classList.toggle("no-map", !orderMap);
  }
}

/** Null where the browser has no WebGL: there is no use in another attempt. */
function drawnOrNull(draw) {
  try {
    return draw();
  } catch {
    return null;
  }
}

async function openActions() {
  if (track.is_shared) return;
  const { Actions } = await import("./track/actions.js");
  actions = new Actions($("actions"), orderPath, stream);
  actions.update(track);
}

/** Show the city's times, with their zone, on a phone whose clock differs. */
async function findZone() {
  if (!track.city) return;
  const { cities } = await (await fetch("/cities")).json();
  const city = cities.find(({ name }) => name === track.city);
  if (city) useZone(city.time_zone);
  drawn.steps = "";
  draw();
}

async function openSession() {
  const token = decodeURIComponent(location.hash.slice(1));
  if (!token) return;
  const response = await fetch(`${orderPath}/session`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
    signal: AbortSignal.timeout(10_000),
  });
  if (response.status === 429 || response.status >= 500) throw new Error(`${response.status}`);
  // Remove the token from the address bar, so that screenshots and the history do not contain it.
  if (response.ok) history.replaceState(null, "", location.pathname);
}

function showLinkEnded() {
  $("link-ended").hidden = false;
  $("card").inert = $("stage").inert = true;
  $("retry").focus();
}

function update(members) {
  receivedAt = Date.now();
  Object.assign(track, members);
  orderMap?.update(track, colour());
  draw();
  if ("other_delivery_first" in members) actions?.update(track);
  load("map", openMap);
}

/** The seconds since the last data. Frozen while there is no connection. */
const elapsedS = () => Math.max(0, (lostSince ?? Date.now()) - receivedAt) / 1000;
const ageS = () => track.position.properties.age_s + elapsedS();

/** The seconds without a position that should be there: its age, or those since the newest event. */
function silenceS() {
  if (track.position) return ageS();
  if (track.other_delivery_first) return 0;
  return ((lostSince ?? Date.now()) - Date.parse(track.events.at(-1)?.occurred_at)) / 1000;
}
const freshness = () => MAX_AGES_S.find(([, maxS]) => ageS() <= maxS)[0];

/** The courier's colour. */
const colour = () => track.position && COLOURS[lostSince === null ? freshness() : "lost"];

/** Show the state, the age of the data, and what follows from it. */
function draw() {
  if (!track) return;
  setText("restaurant-name", track.restaurant?.name || text("restaurant"));
  $("legend").hidden = !track.destination;
  const { position, state } = track;
  const hasSignal = !TRACKED_STATES.includes(state) || !(silenceS() > LOST_AFTER_S);
  const shown = hasSignal ? track : { ...track, eta: null };
  setText("sentence", sentence(shown, hasSignal));
  const label = text(`states.${state}`);
  setText("state", hasSignal ? label : text("lastKnown", { state: label }));
  $("sentence").classList.toggle("muted", !hasSignal || lostSince !== null);
  const title = `${$("sentence").textContent} · Doorstep`;
  if (document.title !== title) document.title = title;
  drawSteps(hasSignal);
  drawEta(shown);
  const lines = notices(shown);
  fill($("notices"), lines, () => lines.map((line) => el("li", {}, line)));
  $("freshness").hidden = !position || FINAL_STATES.includes(state);
  if (!position) return;
  const seen = text(ageS() > 15 ? "lastSeen" : "seen", { ago: ago(ageS()) });
  const time = clock(receivedAt - position.properties.age_s * 1000, { withSeconds: true });
  setText("freshness-text", lostSince === null ? seen : text("seenAt", { time }));
  $("freshness").style.setProperty("--color", colour());
  orderMap?.setColour(colour());
}

/** The estimate counts down while positions come; without them it stays, in grey. */
function drawEta(shown) {
  const { eta, position } = shown;
  const isOld = Boolean(position) && ageS() > MAX_COUNTED_AGE_S;
  const beforeOldS = position ? MAX_COUNTED_AGE_S - position.properties.age_s : Infinity;
  const countedS = Math.max(0, Math.min(elapsedS(), beforeOldS));
  const isCounted = eta && position && eta.p10_at;
  setText("minutes", isCounted ? minutes(...remainingRange(eta).map((one) => one - countedS)) : "");
  $("minutes").classList.toggle("muted", lostSince !== null || isOld);
  setText("basis", eta && !isEarly(shown) && eta.p10_at ? describeEta(shown) : "");
}

/** The remaining seconds at the reception: p10 and p90 of the arrival. */
function remainingRange({ seconds, arrives_at, p10_at, p90_at }) {
  return [p10_at, p90_at].map((one) => seconds + (Date.parse(one) - Date.parse(arrives_at)) / 1000);
}

/** A range of durations in minutes: `12 min`, `10–14 min`, `< 1 min`. */
function minutes(lowS, highS) {
  if (highS < 60) return "< 1 min";
  const [low, high] = [lowS, highS].map((one) => Math.max(1, Math.round(one / 60)));
  return low < high ? `${low}–${high} min` : `${high} min`;
}

const drawn = { steps: "" };
/** Four steps. The end of an order that was not delivered takes the place of those not reached. */
function drawSteps(hasSignal) {
  const version = `${track.state} ${track.events.length} ${hasSignal}`;
  if (version === drawn.steps) return;
  drawn.steps = version;
  const { state, events } = track;
  const isBadEnd = state === "cancelled" || state === "failed";
  const before = events.filter((one) => one.state !== state).at(-1)?.state ?? "created";
  const reached = STEPS.findIndex((states) => states.includes(isBadEnd ? before : state));
  const steps = STEPS.map((states, n) => {
    const event = n <= reached && events.find((one) => states.includes(one.state));
    const kinds = [n <= reached && "done", n === reached && "current", n === reached && !hasSignal && "uncertain"];
    return step(text(`steps.${n}`), event, kinds.filter(Boolean).join(" "));
  });
  if (isBadEnd) {
    steps.length = reached + 1;
    steps.at(-1).classList.remove("current");
    steps.push(step(text(`states.${state}`), events.at(-1), "done current ended"));
  }
  $("steps").replaceChildren(...steps);
  actions?.update(track);
}

function step(label, event, kind) {
  const current = kind.includes("current") ? "step" : null;
  const isDone = kind.includes("done") && (!current || FINAL_STATES.includes(track.state));
  const hidden = isDone ? el("span", { class: "visually-hidden" }, ` ${text("done")}`) : null;
  const time = event ? clock(event.occurred_at, { withZone: false }) : "";
  return el("li", { class: kind, "aria-current": current }, el("span", {}, label, hidden), el("time", {}, time));
}

/** Set a text if it differs: screen readers announce changes only. */
function setText(id, value) {
  if ($(id).textContent !== value) $(id).textContent = value;
}

setText("number", orderId.slice(0, 8));
$("retry").addEventListener("click", () => location.reload());
addEventListener("hashchange", () => location.reload());
setInterval(draw, 1000);
setInterval(() => track && !track.position && lostSince === null && stream.refresh(), REFRESH_MS);
texts.then(() => {
  $("map").dataset.loading = text("loadingMap");
  $("stage").setAttribute("aria-label", text("map"));
  $("steps").setAttribute("aria-label", text("stepByStep"));
  $("legend").setAttribute("aria-label", text("onTheMap"));
});
stream.follow(openSession).catch((error) => {
  if (error !== LINK_NOT_FOUND) throw error;
  showLinkEnded();
});
