// The restaurant's page: its own orders, read every few seconds. It sees a courier's name and
// arrival between assignment and pick-up, and never a place.
import { AnswerOrder, ApiProblem, Unauthorized, every, fetchAsStaff, getJson, showSignIn, startSession } from "./api.js";
import { fill } from "./elements.js";
import { Bell } from "./restaurant/bell.js";
import { goneRow, kitchenCard, nameOf, newOrderCard } from "./restaurant/order-card.js";
import { language, locale, texts, timeFormat } from "./restaurant/texts.js";

const REFRESH_MS = 3000;
const RING_AGAIN_MS = 20_000; // while a new order is not confirmed
const OFFLINE_AFTER_MS = 8000;
const MINUTE_S = 60;
const KITCHEN = ["confirmed", "assigned", "at_restaurant"];

const $ = (id) => document.getElementById(id);
const bell = new Bell();
const waiting = new Set(); // ids of orders with a command under way
let seen = null; // ids of the new orders, and of couriers who are here; null before the first read
let answer = null;
let clockAhead_ms = 0; // of the server
let rangAt_ms = 0;
let readAt_ms = Date.now();
const answers = new AnswerOrder();
const now = () => Date.now() + clockAhead_ms;

async function refresh() {
  try {
    const isNewer = answers.begin();
    const found = await getJson("/restaurant/orders");
    if (!isNewer()) return;
    answer = found;
    readAt_ms = Date.now();
    clockAhead_ms = Date.parse(answer.now) - readAt_ms;
    announce();
    render();
  } finally {
    renderConnection();
  }
}

/** Say, ring and show what has come since the last read. */
function announce() {
  const fresh = answer.orders.filter(({ state }) => state === "created");
  const here = answer.orders.filter(({ courier }) => courier?.is_here);
  const ids = new Set([...fresh.map((one) => one.order_id), ...here.map((one) => `here ${one.order_id}`)]);
  const added = fresh.filter((one) => !seen?.has(one.order_id));
  const arrived = here.filter((one) => !seen?.has(`here ${one.order_id}`));
  const messages = [
    ...(added.length ? [texts.added(added.length)] : []),
    ...(seen === null ? [] : arrived.map((one) => texts.arrived(one.courier.name, nameOf(one)))),
  ];
  if (messages.length) $("announcement").textContent = messages.join(". ");
  const isDue = fresh.length > 0 && Date.now() - rangAt_ms > RING_AGAIN_MS;
  if (added.length || isDue || (seen !== null && arrived.length)) {
    rangAt_ms = Date.now();
    bell.ring();
  }
  seen = ids;
  document.title = fresh.length ? `(${fresh.length}) ${texts.fresh}` : `${texts.title} · ${answer.restaurant.name}`;
}

function render() {
  const { orders, restaurant } = answer;
  const clock = timeFormat(restaurant.time_zone);
  const preparationMin = restaurant.preparation_s && Math.round(restaurant.preparation_s / MINUTE_S);
  $("name").textContent = restaurant.name;
  const view = (order) => ({ clock, actions, now, preparationMin, isWaiting: waiting.has(order.order_id) });
  const minute = Math.floor(now() / 60_000); // "ready" turns with the clock
  const list = (id, some, build) => {
    $(id).hidden = some.length === 0;
    const signature = [some, minute, some.map(({ order_id }) => waiting.has(order_id))];
    fill($(id).querySelector("ul"), signature, () => some.map(build));
  };
  list("fresh", orders.filter(({ state }) => state === "created").reverse(), (one) => newOrderCard(one, view(one)));
  list("kitchen", orders.filter(({ state }) => KITCHEN.includes(state)).sort(byReadiness), (one) => kitchenCard(one, view(one)));
  list("gone", orders.filter(({ state }) => state in texts.states), (one) => goneRow(one, clock));
  $("none").hidden = orders.some(({ state }) => state === "created" || KITCHEN.includes(state));
}

/** Couriers who are here first, then by the time at which it is to be ready. */
function byReadiness(a, b) {
  const key = (order) => (order.courier?.is_here ? 0 : Date.parse(order.ready_at ?? order.created_at));
  return key(a) - key(b);
}

const actions = {
  confirm: (order, readyAt) =>
    command(order, "POST", "confirm", readyAt ? { ready_at: readyAt } : {}, `confirm-${order.order_id}`),
  setReady: (order, readyAt) => command(order, "PUT", "ready-at", { ready_at: readyAt }),
};

async function command(order, method, name, body, key) {
  waiting.add(order.order_id);
  render();
  try {
    const headers = { "Content-Type": "application/json", ...(key ? { "Idempotency-Key": key } : {}) };
    await fetchAsStaff(`/restaurant/orders/${order.order_id}/${name}`, { method, headers, body: JSON.stringify(body) });
    $("problem").textContent = "";
  } catch (error) {
    if (error instanceof Unauthorized) return showSignIn();
    $("problem").textContent = error instanceof ApiProblem ? texts.refused : texts.failed;
  } finally {
    waiting.delete(order.order_id);
    answers.dropRequested();
    await refresh().catch(() => {}); // the next one explains
    if (answer) render();
  }
}

function renderConnection() {
  const isLost = Date.now() - readAt_ms > OFFLINE_AFTER_MS;
  $("connection-banner").hidden = !isLost;
  const since = new Date(readAt_ms).toLocaleTimeString(locale, { hour: "2-digit", minute: "2-digit" });
  $("connection-banner").textContent = isLost ? texts.offline(since) : "";
}

async function turnSoundOn() {
  const isOn = await bell.turnOn();
  $("sound").setAttribute("aria-pressed", String(isOn));
  $("sound").textContent = isOn ? texts.soundOn : texts.soundOff;
}

document.documentElement.lang = language;
for (const element of document.querySelectorAll("[data-text]")) element.textContent = texts[element.dataset.text];
$("sound").addEventListener("click", async () => {
  await turnSoundOn();
  bell.ring();
});
// Any touch may start the sound, so that a reload of the tablet does not silence it.
document.addEventListener("pointerdown", () => bell.isOn || turnSoundOn(), { once: true });
setInterval(renderConnection, 1000);
startSession(() => every(REFRESH_MS, refresh), undefined, undefined, texts);
