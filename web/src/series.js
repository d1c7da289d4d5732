// The chart of series: a chooser, one series' history and then its points as they come.
import { Offline } from "./offline.js";
import { Chart } from "./series-chart.js";
import { Watch } from "./series-watch.js";
import { el } from "./words.js";

const TOKEN = "doorstep-staff-token"; // its name in sessionStorage: gone with the tab
const PAGE = 100; // series in one answer
const KINDS = { // what they are called, and how many there may be
  couriers: ["Couriers", 5000],
  cities: ["Vans in France", 500],
  tickers: ["Tickers", 1000],
};
const HISTORY_AGAIN_MS = 60_000; // what a slow page was not told is there again after this
const DRIVERS_AGAIN_MS = 4000;
const VIEW_SETTLES_MS = 150;
const ROWS = 50;
const $ = (id) => document.getElementById(id);

let watch = null;
let listed = new Map(); // name: { item, button, value }
let listing = 0;
let nextAfter = null;
let dirty = false;
let askedAt = 0;
let toldAt = 0;
let unanswered = false; // the newest question to the server
let beside = null; // the Watch of a second series

// The door: a token from the address's #token, or typed in

class Refused extends Error {}

function openDoor(trouble = "") {
  sessionStorage.removeItem(TOKEN);
  $("trouble").textContent = trouble;
  $("door").hidden = false;
  document.querySelector("#door input").focus();
}

function enter(token) {
  sessionStorage.setItem(TOKEN, token);
  $("door").hidden = true;
  begin();
}

function adoptHash() {
  const token = decodeURIComponent(location.hash.slice(1));
  if (!token) return;
  history.replaceState(null, "", location.pathname + location.search);
  enter(token);
}

async function fetchIt(path, { headers = {}, method = "GET", body, signal } = {}) {
  const answer = await fetch(path, {
    method,
    body,
    signal,
    headers: {
      Accept: "application/json, text/event-stream",
      Authorization: `Bearer ${sessionStorage.getItem(TOKEN)}`,
      ...headers,
    },
  });
  if (answer.status === 401 || answer.status === 403) throw new Refused("This token is not good.");
  if (!answer.ok) throw new Error(`The answer was ${answer.status}.`);
  unanswered = false;
  return answer;
}

const patience = () => ({ signal: AbortSignal.timeout(8000) });

const offline = new Offline($("offline"));

function onTrouble(error) {
  if (error instanceof Refused) return openDoor(error.message);
  unanswered = true;
  sayPulse();
}

/** Live is what the chosen one's stream is; with none chosen, that questions are answered. */
function sayPulse() {
  const isLive = watch ? watch.isLive : !unanswered;
  offline.live(isLive !== false && !unanswered);
  const word = isLive === false || unanswered ? "not connected" : isLive ? "live" : "";
  if ($("pulse").textContent !== word) $("pulse").textContent = word;
  $("pulse").classList.toggle("late", word === "not connected");
}

// The list

async function drawList(after = "") {
  const mine = ++listing;
  const prefix = $("search").value.trim();
  let answer;
  try {
    const query = new URLSearchParams({ prefix, after, limit: String(PAGE) });
    answer = await (await fetchIt(`/series?${query}`, patience())).json();
  } catch (error) {
    return onTrouble(error);
  }
  if (mine !== listing) return; // somebody has typed on
  if (!after) {
    const found = new Set(answer.series.map(({ name }) => name));
    for (const [name, { item }] of listed) {
      if (found.has(name)) continue;
      item.remove();
      listed.delete(name);
    }
  }
  for (const [n, { name, unit, last_value: value }] of answer.series.entries()) {
    if (!listed.has(name)) listed.set(name, entryOf(name));
    const { item, value: shown } = listed.get(name);
    shown.textContent = value === null ? "" : tell(value, unit);
    // in the answer's order; what stands in its place is not touched, and keeps the focus
    if (after) $("list").append(item);
    else if ($("list").children[n] !== item) $("list").insertBefore(item, $("list").children[n]);
  }
  nextAfter = answer.next_after;
  $("more").hidden = !nextAfter;
  $("none").textContent = prefix
    ? "No series has such a name."
    : "Nothing has been published yet. Some tickers? Say how many, under “Simulated”.";
  $("none").hidden = listed.size > 0;
}

function entryOf(name) {
  const value = el("span", { class: "soft" });
  const button = el("button", { type: "button", onclick: () => choose(name) }, el("span", {}, name), value);
  if (watch?.name === name) button.setAttribute("aria-current", "true");
  const plus = { type: "button", class: "plus", "aria-label": `Show ${name} beside`, title: "Show beside" };
  const more = el("button", { ...plus, onclick: () => chooseBeside(name) }, "+");
  return { button, value, item: el("li", {}, button, more) };
}

/** Refresh the values of what is shown, without moving anything. */
async function refreshList() {
  if (!document.hidden && listed.size <= PAGE) await drawList();
}

// The chosen one

function choose(name) {
  watch?.end();
  listed.get(watch?.name)?.button.removeAttribute("aria-current");
  watch = new Watch(name, { fetchIt, onTrouble, onChange: () => (dirty = true) });
  listed.get(name)?.button.setAttribute("aria-current", "true");
  keepAddress();
  $("name").textContent = name;
  $("newest").textContent = $("stretch").textContent = $("problem").textContent = "";
  dirty = true;
  chart.goLive();
}

/** Show a second one below, over the same stretch of time; null: none. */
function chooseBeside(name) {
  if (!watch && name) return choose(name);
  beside?.end();
  beside = name ? new Watch(name, { fetchIt, onTrouble, onChange: () => (dirty = true) }) : null;
  $("beside").hidden = !beside;
  $("beside-name").textContent = name ?? "";
  $("beside-newest").textContent = "";
  $("beside-chart").setAttribute("aria-label", name ?? "");
  keepAddress();
  dirty = true;
  load();
}

function keepAddress() {
  const query = new URLSearchParams({ name: watch.name, ...(beside && { beside: beside.name }) });
  history.replaceState(null, "", `${location.pathname}?${query}`);
}

let settling;
const chart = new Chart($("chart"), () => {
  $("live").setAttribute("aria-pressed", String(chart.isLive));
  dirty = true;
  clearTimeout(settling);
  settling = setTimeout(load, watch?.loaded ? VIEW_SETTLES_MS : 0);
});

// What is done to the second chart is done to both.
const besideChart = new Chart($("beside-chart"), () => {
  chart.copy(besideChart);
  chart.onView();
});

function load() {
  if (!watch) return;
  askedAt = Date.now();
  chart.slide(askedAt / 1000);
  // as far to the left again, so that going back has something to show
  const earlier = chart.isLive ? (chart.to - chart.from) / 2 : 0;
  const to = chart.isLive ? chart.to + 5 : chart.to; // a source's clock may be ahead
  for (const one of [watch, beside]) one?.load(chart.from - earlier, to, chart.width * 2);
}

function frame() {
  requestAnimationFrame(frame);
  const nowS = Date.now() / 1000;
  if (!watch) return;
  const came = [watch, beside].filter((one) => one?.settle()).length > 0;
  const slid = chart.slide(nowS);
  if (!(came || slid || dirty)) return;
  dirty = false;
  for (const [one, its] of [[watch, chart], [beside, besideChart]]) {
    if (!one) continue;
    its.copy(chart);
    if (its.isLive) one.data.dropBefore(chart.from - chart.windowS);
    its.show(one.data);
  }
  if (nowS - toldAt > 0.25 || !slid) {
    toldAt = nowS;
    describe();
  }
}

function describe() {
  const { xs, ys } = watch.data;
  if (beside) $("beside-newest").textContent = newestOf(beside);
  const [first, last] = [watch.data.indexOf(chart.from), watch.data.indexOf(chart.to)];
  $("newest").textContent = newestOf(watch);
  if (!xs.length) return;
  let [low, high] = [Infinity, -Infinity];
  for (let n = first; n < last; n++) {
    low = Math.min(low, ys[n]);
    high = Math.max(high, ys[n]);
  }
  const stretch = `${timeOf(chart.from)} – ${timeOf(chart.to)}`;
  const ends = last > first ? ` · ${tell(low, watch.unit)} … ${tell(high, watch.unit)}` : " · no value";
  const count = watch.loaded ? ` · ${watch.loaded.stands_for.toLocaleString()} read` : "";
  $("stretch").textContent = stretch + ends + count;
  $("chart").setAttribute("aria-label", `${watch.name}, ${stretch}${ends}`);
  if ($("table").open) {
    const rows = [];
    for (let n = last - 1; n >= Math.max(first, last - ROWS); n--) {
      rows.push(el("tr", {}, el("td", {}, timeOf(xs[n], true)), el("td", {}, tell(ys[n], watch.unit))));
    }
    document.querySelector("#table tbody").replaceChildren(...rows);
  }
}

function newestOf({ data: { ys }, unit, loaded }) {
  return ys.length ? tell(ys.at(-1), unit) : loaded ? "nothing here yet" : "";
}

function tell(value, unit) {
  const text = Number.isInteger(value) ? String(value) : Number(value.toPrecision(6)).toString();
  return unit ? `${text} ${unit}` : text;
}

function timeOf(x, exactly = false) {
  const at = new Date(x * 1000);
  const today = at.toDateString() === new Date().toDateString();
  const time = at.toLocaleTimeString([], { hour12: false });
  const ms = exactly ? `.${String(at.getMilliseconds()).padStart(3, "0")}` : "";
  return `${today ? "" : `${at.toLocaleDateString()} `}${time}${ms}`;
}

// How many are simulated

$("simulated").open = innerWidth > 760; // on a phone the list needs the room
const counts = new Map();
for (const [kind, [words, most]] of Object.entries(KINDS)) {
  const input = el("input", { type: "number", min: "0", max: most, step: "1", required: "" });
  const form = el(
    "form",
    { onsubmit: (event) => setCount(event, kind, input) },
    el("label", {}, words, input),
    el("button", {}, "Set"),
  );
  counts.set(kind, input);
  $("simulations").append(form);
}

async function setCount(event, kind, input) {
  event.preventDefault();
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ count: input.valueAsNumber });
  try {
    await fetchIt(`/simulations/${kind}`, { method: "PUT", headers, body, ...patience() });
    input.blur();
    $("simulated-said").textContent = `${KINDS[kind][0]}: ${input.value} wanted. Some seconds, please.`;
    await drawCounts();
  } catch (error) {
    $("simulated-said").textContent = `Not set: ${error.message}`;
    onTrouble(error);
  }
}

async function drawCounts() {
  try {
    const { simulations } = await (await fetchIt("/simulations", patience())).json();
    for (const { kind, wanted } of simulations) {
      const input = counts.get(kind);
      if (input !== document.activeElement) input.value = wanted ?? "";
    }
  } catch (error) {
    onTrouble(error);
  }
}

// What people do

document.querySelector("#door form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = new FormData(event.target).get("token").trim();
  event.target.reset();
  enter(token);
});
addEventListener("hashchange", adoptHash);
$("search").addEventListener("input", () => drawList());
$("more").addEventListener("click", () => drawList(nextAfter));
$("window").addEventListener("change", (event) => chart.goLive(Number(event.target.value)));
$("live").addEventListener("click", () => chart.goLive());
const keys = {
  ArrowLeft: () => chart.pan(-0.25),
  ArrowRight: () => chart.pan(0.25),
  "+": () => chart.zoom(0.5),
  "-": () => chart.zoom(2),
  Home: () => chart.goLive(),
};
const buttons = { back: "ArrowLeft", forth: "ArrowRight", closer: "+", farther: "-" };
for (const [id, key] of Object.entries(buttons)) $(id).addEventListener("click", keys[key]);
$("chart").addEventListener("keydown", (event) => {
  if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  keys[event.key]();
});
$("beside-close").addEventListener("click", () => chooseBeside(null));
$("table").addEventListener("toggle", () => (dirty = true));
$("range").addEventListener("submit", (event) => {
  event.preventDefault();
  const { from, to } = Object.fromEntries(new FormData(event.target));
  const [start, end] = [Date.parse(from) / 1000, Date.parse(to) / 1000];
  $("problem").textContent = start < end ? "" : "“From” must lie before “to”.";
  if (start < end) chart.look(start, end);
});

let begun = false;
function begin() {
  drawList();
  drawCounts();
  if (begun) return watch && choose(watch.name);
  begun = true;
  const asked = new URLSearchParams(location.search);
  if (asked.get("name")) choose(asked.get("name"));
  if (asked.get("name") && asked.get("beside")) chooseBeside(asked.get("beside"));
  requestAnimationFrame(frame);
  setInterval(refreshList, 5000);
  setInterval(drawCounts, 5000);
  setInterval(sayPulse, 500);
  setInterval(() => {
    const every = watch?.isDrivers ? DRIVERS_AGAIN_MS : HISTORY_AGAIN_MS;
    if (watch && chart.isLive && Date.now() - askedAt >= every) load();
  }, 1000);
}

adoptHash();
if (!sessionStorage.getItem(TOKEN)) openDoor();
else if (!begun) begin();

// for the console and the browser tests
globalThis.doorstepSeries = () => ({
  name: watch?.name ?? null,
  xs: [...chart.xs],
  ys: [...chart.ys],
  from: chart.from,
  to: chart.to,
  isLive: chart.isLive,
  draws: chart.draws,
  events: watch?.events ?? 0,
  besideYs: [...besideChart.ys],
  held: watch ? watch.data.xs.length + watch.recent.xs.length + watch.pending.length : 0,
});
