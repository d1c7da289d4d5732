// The courier's page: duty, offers, the order, and the phone as a device. Everything it shows is kept on
// the phone, so that it opens without a network; see drive/device.js for what becomes of positions.
import { request } from "./drive/api.js";
import { Commands } from "./drive/commands.js";
import { nextStep, offerCard, orderCard, returnCard } from "./drive/order-card.js";
import { Photos, shrink } from "./drive/photos.js";
import { askDecline, askHandOver, askReason } from "./drive/questions.js";
import { Reporter } from "./drive/reporter.js";
import { texts, translatePage } from "./drive/texts.js";
import { el, fill } from "./elements.js";

const KEY = "doorstep-drive";
const HINT_KEY = "doorstep-drive-hint";
const POLL_MS = 5000;
const IDLE_POLL_MS = 30_000; // off duty, or hidden
const VIBRATION_MS = [300, 150, 300];
const DUTIES = { on_duty: "on-duty", on_break: "on-break", off_duty: "off-duty" };
const $ = (selector) => document.querySelector(selector);

let known = JSON.parse(localStorage.getItem(KEY) ?? "null"); // { driverId, name, driver }
let reporter = null;
let isOffline = false;
let serverAheadMs = 0;
let refusal = "";
let pollTimer = 0;
let refreshNo = 0;
let sessionNo = 0; // the answer of an earlier sign-in is dropped
const commands = new Commands(settleCommand);
const photos = new Photos((answer) => {
  if (answer?.status >= 400) refusal = texts.photoRefused;
  render();
});

function remember(change) {
  known = change && { ...known, ...change };
  if (known) localStorage.setItem(KEY, JSON.stringify(known));
  else localStorage.removeItem(KEY);
}

// --- the session --------------------------------------------------------------------------------

async function signIn(token) {
  const mine = ++sessionNo;
  const button = $("#sign-in button");
  button.disabled = true;
  $("#sign-in-error").textContent = "";
  const answer = await request("/session", { method: "POST", body: { token } }).catch(() => null);
  if (mine !== sessionNo) return;
  button.disabled = false;
  if (answer?.status === 200) return begin(answer.body.driver_id, answer.body.name);
  const isRefused = answer?.status === 401;
  $("#sign-in-error").textContent = isRefused ? texts.badToken : answer?.status === 429 ? texts.tooMany : texts.noServer;
  showSignIn("");
}

/** Work as this driver. Another driver's commands and order leave the phone; their fixes stay. */
function begin(driverId, name) {
  if (known && known.driverId !== driverId) {
    commands.clear();
    photos.clear();
    remember(null);
    reporter?.stop();
    reporter = null;
  }
  remember({ driverId, name: name ?? known?.name ?? driverId });
  startReporter();
  $("#sign-in").hidden = true;
  $("#work").hidden = $("#sign-out").hidden = false;
  render();
  reporter.retryNow();
  refresh();
}

function startReporter() {
  if (reporter) return;
  reporter = new Reporter(known.driverId, render);
  reporter.start();
}

function showSignIn(reason) {
  $("#sign-in-reason").textContent = reason;
  $("#sign-in").hidden = false;
  $("#work").hidden = $("#sign-out").hidden = true;
  reporter?.watch(false);
}

async function signOut() {
  const answer = await request("/session", { method: "DELETE" }).catch(() => null);
  if (answer?.status !== 204 && answer?.status !== 401) {
    refusal = texts.noServer; // no script can delete the cookie
    return render();
  }
  reporter?.stop();
  reporter = null;
  commands.clear();
  photos.clear();
  remember(null);
  showSignIn("");
}

/** A token after # in the address leaves it, and the history, at once. */
function takeToken() {
  const token = decodeURIComponent(location.hash.slice(1));
  if (!token) return false;
  history.replaceState(null, "", location.pathname);
  signIn(token);
  return true;
}

// --- the platform's view ----------------------------------------------------------------------------

async function refresh() {
  clearTimeout(pollTimer);
  if (!known || !$("#sign-in").hidden) return;
  const mine = ++refreshNo;
  await commands.send();
  photos.send();
  const answer = await request(`/drivers/${known.driverId}`).catch(() => null);
  if (mine !== refreshNo || !known) return; // a newer one is under way
  isOffline = answer === null || answer.status >= 500;
  if (answer?.status === 401 || answer?.status === 403) {
    remember({ driver: null }); // the customer's data
    return showSignIn(texts.ended);
  }
  if (answer?.status === 200) {
    serverAheadMs = answer.serverMs - Date.now();
    const isNew = ({ order_id: id }) => !known.driver?.offers?.some((offer) => offer.order_id === id);
    if (answer.body.offers?.some(isNew)) navigator.vibrate?.(VIBRATION_MS);
    remember({ driver: answer.body });
  }
  render();
  const isIdle = document.visibilityState === "hidden" || known.driver?.duty === "off_duty";
  pollTimer = setTimeout(refresh, isIdle ? IDLE_POLL_MS : POLL_MS);
}

function settleCommand({ name }, { status, body }) {
  refusal = status < 400 ? "" : (pinRefusal(body) ?? texts.refused(name));
}

function pinRefusal(problem) {
  if (problem?.type === "/problems/pin-locked") return texts.pinLocked;
  if (problem?.type !== "/problems/wrong-pin") return null;
  return problem.reason === "missing" ? texts.missingPin : texts.wrongPin(problem.tries_left);
}

function give(command) {
  refusal = "";
  const sent = commands.add(command);
  render();
  sent.then(refresh);
}

const giveDuty = (duty) =>
  give({ kind: "duty", duty, name: texts[duty], path: `/drivers/${known.driverId}/${DUTIES[duty]}` });

const giveOrder = (order, name, path, body) =>
  give({ kind: order.order_id, name, path: `/drivers/${known.driverId}/orders/${order.order_id}/${path}`, body });

/** Ask for what belongs to a hand-over, then deliver. A photo is sent on its own, perhaps later. */
async function handOver(order) {
  const answer = await askHandOver({ hasPin: order.has_pin, isOffline });
  if (answer === null) return;
  const path = `/drivers/${known.driverId}/orders/${order.order_id}/photo`;
  giveOrder(order, texts.delivered, "delivered", Object.keys(answer.body).length > 0 ? answer.body : undefined);
  if (answer.photo === null) return;
  const blob = await shrink(answer.photo).catch(() => null);
  if (blob) return photos.add({ path, blob });
  refusal = texts.badPhoto;
  render();
}

const giveOffer = ({ order_id: id }, name, path) =>
  give({ kind: id, name, path: `/drivers/${known.driverId}/offers/${id}/${path}` });

// --- what is shown ---------------------------------------------------------------------------------

/** The duty that the driver chose, before the platform has it. */
function dutyNow() {
  return commands.waiting.findLast(({ kind }) => kind === "duty")?.duty ?? known.driver?.duty ?? "off_duty";
}

function render() {
  if (!known || !reporter || !$("#sign-in").hidden) return;
  const duty = dutyNow();
  const orders = known.driver?.orders ?? [known.driver?.order].filter(Boolean);
  // The platform drops what was taken off duty, so a wish to be on duty does not count yet.
  const isOnDuty = duty !== "off_duty" && known.driver && known.driver.duty !== "off_duty";
  reporter.watch(Boolean(isOnDuty) && isSecureContext);
  $("#who").textContent = known.name;
  renderDuty(duty);
  renderSafety();
  renderNotices(duty);
  const waiting = commands.waiting.map(({ kind }) => kind);
  const offers = known.driver?.offers ?? [];
  fill($("#offers"), [offers, waiting], () =>
    offers.map((offer) =>
      offerCard(
        offer,
        {
          accept: () => giveOffer(offer, texts.accept, "accept"),
          decline: () => giveOffer(offer, texts.decline, "decline"),
        },
        waiting.includes(offer.order_id),
      ),
    ),
  );
  const returns = known.driver?.returns ?? [];
  fill($("#returns"), [returns, waiting], () =>
    returns.map((leg) => returnCard(leg, () => giveOrder(leg, texts.handedBack, "returned"), waiting.includes(leg.order_id))),
  );
  fill($("#order"), [orders, duty === "off_duty", offers.length + returns.length > 0, waiting], () => {
    if (orders.length > 0) return orders.map((order, n) => cardOf(order, n, orders.length, waiting));
    if (offers.length + returns.length > 0) return [];
    return [el("p", { class: "card quiet" }, duty === "off_duty" ? texts.offDuty : texts.noOrder)];
  });
  renderCountdowns();
}

function cardOf(order, n, count, waiting) {
  const step = nextStep(order);
  const actions = {
    next: () => (step.path === "delivered" && order.has_pin ? handOver(order) : giveOrder(order, step.name, step.path)),
    handOver: () => handOver(order),
    decline: async () => (await askDecline()) && giveOrder(order, texts.decline, "decline"),
    fail: async () => {
      const reason = await askReason(known.driver.failure_reasons, known.driver.next_steps);
      if (reason) giveOrder(order, texts.failed, "failed", reason);
    },
  };
  return orderCard(order, actions, waiting.includes(order.order_id), count > 1 ? texts.stop(n + 1, count) : "");
}

function renderDuty(duty) {
  fill($("#duty"), [duty], () =>
    Object.keys(DUTIES).map((one) =>
      el(
        "button",
        { type: "button", role: "radio", "aria-checked": String(one === duty), "data-duty": one, onclick: () => giveDuty(one) },
        texts[one],
      ),
    ),
  );
}

function renderSafety() {
  const { device } = reporter;
  const safety = $("#safety");
  const pending = device?.pending ?? 0;
  const isReporting = reporter.isWanted && device;
  safety.className = pending > 0 ? "waiting" : isReporting ? "" : "idle";
  safety.dataset.pending = device ? pending : "";
  safety.textContent = pending > 0 ? texts.waiting(pending) : isReporting ? texts.allSafe : texts.notReporting;
}

function renderNotices(duty) {
  const { device } = reporter;
  const notices = [
    reporter.isOtherTab && !device && texts.otherTab,
    !isSecureContext && texts.unsafePage,
    device?.isFull && texts.storageFull,
    duty !== "off_duty" && reporter.problem && texts[reporter.problem],
    (isOffline || device?.hasFailed) && texts.offline,
    device?.givenUp > 0 && texts.lost(device.givenUp),
    device?.rejected > 0 && texts.refusedFixes(device.rejected),
    refusal,
    photos.waiting > 0 && isOffline && texts.photoWaiting,
    ...commands.waiting.filter(() => isOffline).map(({ name }) => texts.queued(name)),
  ].filter(Boolean);
  fill($("#notices"), notices, () => notices.map((text) => el("li", {}, text)));
}

function renderCountdowns() {
  for (const left of document.querySelectorAll("[data-expires]")) {
    const seconds = Math.round((Date.parse(left.dataset.expires) - Date.now() - serverAheadMs) / 1000);
    left.textContent = texts.secondsLeft(Math.max(0, seconds));
    if (seconds < 0) left.closest(".offer").remove();
  }
}

// --- start -----------------------------------------------------------------------------------------

async function start() {
  translatePage();
  navigator.serviceWorker?.register("/drive/service-worker.js", { scope: "/drive" }).catch(() => {});
  const hint = $("#background");
  hint.open = localStorage.getItem(HINT_KEY) === null;
  hint.addEventListener("toggle", () => hint.open || localStorage.setItem(HINT_KEY, "read"));
  navigator.storage?.persist?.().catch(() => {}); // so that the journal is not evicted
  if (takeToken()) return;
  if (known) return begin(known.driverId, known.name);
  const mine = ++sessionNo;
  const answer = await request("/session").catch(() => null);
  if (mine !== sessionNo) return; // a token has come since
  if (answer?.status === 200) begin(answer.body.driver_id, answer.body.name);
  else showSignIn(answer === null ? texts.noServer : "");
}

$("#sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = new FormData(event.target).get("token").trim();
  event.target.reset();
  signIn(token);
});
$("#sign-out").addEventListener("click", signOut);
addEventListener("hashchange", takeToken);
addEventListener("online", () => {
  reporter?.retryNow();
  refresh();
});
addEventListener("offline", () => {
  isOffline = true;
  render();
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") refresh();
});
addEventListener("beforeinstallprompt", (event) => {
  event.preventDefault();
  $("#install").hidden = false;
  $("#install").onclick = () => event.prompt();
});
addEventListener("appinstalled", () => {
  $("#install").hidden = true;
});
setInterval(renderCountdowns, 1000);
start();
