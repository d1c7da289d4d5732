// The series page: a list, one selected series with its history and live points, and a second one.
import { ApiProblem, fetchAsStaff, showSignIn, startSession, Unauthorized } from "./api.js";
import { ConnectionBanner } from "./connection-banner.js";
import { el, fill } from "./elements.js";
import { Chart } from "./series-chart.js";
import { SeriesSubscription } from "./series-subscription.js";
import { failureText } from "./refusals.js";
import { decimal, locale, say, translatePage } from "./series/texts.js";

const PAGE_SIZE = 100;
const SIMULATIONS = {
  couriers: { label: say("Couriers"), max: 5000 },
  cities: { label: say("Vans in France"), max: 500 },
  tickers: { label: say("Tickers"), max: 1000 },
};
const HISTORY_REFRESH_MS = 60_000; // fills what a slow page missed
const POLLED_REFRESH_MS = 4000; // of what has no stream
const VIEW_DEBOUNCE_MS = 150;
const TABLE_ROWS = 50;
const $ = (id) => document.getElementById(id);

let selected = null; // the SeriesSubscription
let second = null; // that of a second series below it
let listed = new Map(); // name: { item, button, value }
let listRequests = 0;
let countRequests = 0;
let nextAfter = null;
let isDirty = false;
let loadedAt = 0;
let describedAt = 0;
let isFailing = false; // the last request
let respondedAt = Date.now();
let isStale = false; // without a connection: the figures stand still

const banner = new ConnectionBanner($("connection-banner"));

async function request(path, options = {}) {
  const response = await fetchAsStaff(path, options);
  onResponse();
  return response;
}

function onResponse() {
  isFailing = false;
  respondedAt = Date.now();
}

function onError(error) {
  if (error instanceof Unauthorized) return showSignIn();
  if (error instanceof ApiProblem && error.status < 500) return onResponse(); // refused, by a server that answers
  isFailing = true;
  drawStatus();
}

/** Live while the streams of what is shown are connected; without one, while requests succeed. */
function drawStatus() {
  const shown = [selected, second].filter((one) => one && !one.isUnknown).map((one) => one.isLive);
  const isLive = isFailing || shown.includes(false) ? false : shown.includes(null) ? null : true;
  banner.update(isLive === false ? respondedAt : null);
  if (isStale === $("connection-banner").hidden) {
    isStale = !isStale;
    document.body.classList.toggle("stale", isStale);
    isDirty = true;
  }
  const text = isLive === false ? say("not connected") : isLive ? say("live") : "";
  if ($("connection").textContent !== text) $("connection").textContent = text;
  $("connection").classList.toggle("disconnected", isLive === false);
}

// The list

async function drawList(after = "") {
  const thisRequest = ++listRequests;
  const prefix = $("search").value.trim();
  let answer;
  try {
    const query = new URLSearchParams({ prefix, after, limit: String(PAGE_SIZE) });
    answer = await (await request(`/series?${query}`)).json();
  } catch (error) {
    return onError(error);
  }
  if (thisRequest !== listRequests) return; // outdated by a later input
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
    shown.textContent = value === null ? "" : format(value, unit);
    // in the response's order; an entry in its place is not moved, and keeps the focus
    if (after) $("list").append(item);
    else if ($("list").children[n] !== item) $("list").insertBefore(item, $("list").children[n]);
  }
  nextAfter = answer.next_after;
  $("more").hidden = !nextAfter;
  $("none").textContent = prefix
    ? say("No series with this name.")
    : say("Nothing has been published yet. Set a number of tickers under “Simulated”.");
  $("none").hidden = listed.size > 0;
}

function entryOf(name) {
  const value = el("span", { class: "muted" });
  const button = el("button", { type: "button", onclick: () => select(name) }, el("span", {}, name), value);
  if (selected?.name === name) button.setAttribute("aria-current", "true");
  const plus = { type: "button", class: "plus", "aria-label": say("Show {} below", name), title: say("Show below") };
  const addButton = el("button", { ...plus, onclick: () => selectSecond(name) }, "+");
  return { button, value, item: el("li", {}, button, addButton) };
}

/** Refresh the values in the list. */
async function refreshList() {
  if (!document.hidden && listed.size <= PAGE_SIZE) await drawList();
}

// The selected series

function subscribe(name) {
  return new SeriesSubscription(name, { onResponse, onError, onChange: () => (isDirty = true), onStream: () => load() });
}

function select(name) {
  selected?.end();
  listed.get(selected?.name)?.button.removeAttribute("aria-current");
  selected = subscribe(name);
  listed.get(name)?.button.setAttribute("aria-current", "true");
  updateAddress();
  $("name").textContent = name;
  fill($("newest"), "", () => []);
  $("range-text").textContent = $("range-error").textContent = "";
  isDirty = true;
  chart.goLive();
}

/** Show a second series below, over the same time range; null removes it. */
function selectSecond(name) {
  if (!selected && name) return select(name);
  second?.end();
  second = name ? subscribe(name) : null;
  $("second").hidden = !second;
  $("second-name").textContent = name ?? "";
  fill($("second-newest"), "", () => []);
  $("second-chart").setAttribute("aria-label", name ?? "");
  updateAddress();
  isDirty = true;
  load();
}

function updateAddress() {
  const query = new URLSearchParams({ name: selected.name, ...(second && { beside: second.name }) });
  history.replaceState(null, "", `${location.pathname}?${query}`);
}

let loadTimer;
const chart = new Chart($("chart"), () => {
  $("live").setAttribute("aria-pressed", String(chart.isLive));
  isDirty = true;
  clearTimeout(loadTimer);
  loadTimer = setTimeout(load, selected?.loaded ? VIEW_DEBOUNCE_MS : 0);
});

// Both charts share one range.
const secondChart = new Chart($("second-chart"), () => {
  chart.copy(secondChart);
  chart.onView();
});

function load() {
  if (!selected) return;
  loadedAt = Date.now();
  slide(loadedAt / 1000);
  // half a range more to the left, for panning
  const earlier = chart.isLive ? (chart.to - chart.from) / 2 : 0;
  const to = chart.isLive ? chart.to + 5 : chart.to; // a source's clock may be fast
  for (const one of [selected, second]) one?.load(chart.from - earlier, to, chart.width * 2);
}

/** Move the chart to now; without a connection it stands still, once it has a range. */
function slide(nowS) {
  return (!isStale || !chart.to) && chart.slide(nowS);
}

function frame() {
  requestAnimationFrame(frame);
  const nowS = Date.now() / 1000;
  if (!selected) return;
  const hasNew = [selected, second].filter((one) => one?.mergePending()).length > 0;
  const hasMoved = slide(nowS);
  if (!(hasNew || hasMoved || isDirty)) return;
  isDirty = false;
  for (const [one, view] of [[selected, chart], [second, secondChart]]) {
    if (!one) continue;
    view.copy(chart);
    if (view.isLive) one.data.dropBefore(chart.from - chart.windowS);
    view.show(one.data);
  }
  if (nowS - describedAt > 0.25 || !hasMoved) {
    describedAt = nowS;
    describe();
  }
}

function describe() {
  const { xs, ys } = selected.data;
  if (second) showNewest("second-newest", second);
  const [first, last] = [selected.data.indexOf(chart.from), selected.data.indexOf(chart.to)];
  showNewest("newest", selected);
  if (!xs.length) return;
  let [low, high] = [Infinity, -Infinity];
  for (let n = first; n < last; n++) {
    low = Math.min(low, ys[n]);
    high = Math.max(high, ys[n]);
  }
  const range = `${timeOf(chart.from)} – ${timeOf(chart.to)}`;
  const extremes = last > first ? ` · ${format(low, selected.unit)} … ${format(high, selected.unit)}` : ` · ${say("no value")}`;
  const count = selected.loaded ? ` · ${say("{} read", selected.loaded.stands_for.toLocaleString(locale))}` : "";
  $("range-text").textContent = range + extremes + count;
  $("chart").setAttribute("aria-label", `${selected.name}, ${range}${extremes}`);
  if ($("table").open) {
    const rows = [];
    for (let n = last - 1; n >= Math.max(first, last - TABLE_ROWS); n--) {
      rows.push(el("tr", {}, el("td", {}, timeOf(xs[n], true)), el("td", {}, format(ys[n], selected.unit))));
    }
    document.querySelector("#table tbody").replaceChildren(...rows);
  }
}

/** Show a series' newest value, and without a connection the time that it is of. */
function showNewest(id, { data: { xs, ys }, unit, loaded, isUnknown }) {
  const value = ys.length ? format(ys.at(-1), unit) : isUnknown ? say("No series with this name.") : loaded ? say("no value yet") : "";
  const at = isStale && ys.length ? say("at {}", timeOf(xs.at(-1))) : "";
  fill($(id), [value, at], () => [value, at && el("span", { class: "as-of" }, ` ${at}`)]);
}

function format(value, unit) {
  const text = decimal(Number.isInteger(value) ? value : Number(value.toPrecision(6)));
  return unit ? `${text} ${unit}` : text;
}

function timeOf(x, exactly = false) {
  const at = new Date(x * 1000);
  const today = at.toDateString() === new Date().toDateString();
  const time = at.toLocaleTimeString(locale, { hour12: false });
  const ms = exactly ? `.${String(at.getMilliseconds()).padStart(3, "0")}` : "";
  return `${today ? "" : `${at.toLocaleDateString(locale)} `}${time}${ms}`;
}

// Simulations

$("simulated").open = innerWidth > 760; // closed on a phone
const counts = new Map();
for (const [kind, { label, max }] of Object.entries(SIMULATIONS)) {
  const input = el("input", { type: "number", min: "0", max, step: "1", required: "" });
  const form = el(
    "form",
    { onsubmit: (event) => setCount(event, kind, input) },
    el("label", {}, label, input),
    el("button", {}, say("Set")),
  );
  counts.set(kind, input);
  $("simulations").append(form);
}

async function setCount(event, kind, input) {
  event.preventDefault();
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ count: input.valueAsNumber });
  try {
    await request(`/simulations/${kind}`, { method: "PUT", headers, body });
    input.blur();
    $("simulation-status").textContent = say("{}: set to {}; starts within seconds.", SIMULATIONS[kind].label, input.value);
    await drawCounts();
  } catch (error) {
    $("simulation-status").textContent = say("Not set: {}", failureText(error));
    onError(error);
  }
}

async function drawCounts() {
  const thisRequest = ++countRequests;
  try {
    const { simulations } = await (await request("/simulations")).json();
    if (thisRequest !== countRequests) return; // outdated by a later one
    for (const { kind, wanted } of simulations) {
      const input = counts.get(kind);
      if (input !== document.activeElement) input.value = wanted ?? "";
    }
  } catch (error) {
    onError(error);
  }
}

// Controls

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
$("second-close").addEventListener("click", () => selectSecond(null));
$("table").addEventListener("toggle", () => (isDirty = true));
$("range").addEventListener("submit", (event) => {
  event.preventDefault();
  const { from, to } = Object.fromEntries(new FormData(event.target));
  const [start, end] = [Date.parse(from) / 1000, Date.parse(to) / 1000];
  $("range-error").textContent = start < end ? "" : say("“From” must be before “to”.");
  if (start < end) chart.showRange(start, end);
});

let isStarted = false;
function start() {
  drawList();
  drawCounts();
  if (isStarted) return selected && select(selected.name);
  isStarted = true;
  const query = new URLSearchParams(location.search);
  if (query.get("name")) select(query.get("name"));
  if (query.get("name") && query.get("beside")) selectSecond(query.get("beside"));
  requestAnimationFrame(frame);
  setInterval(refreshList, 5000);
  setInterval(drawCounts, 5000);
  setInterval(drawStatus, 500);
  setInterval(() => {
    const isPolled = selected?.isPolled || second?.isPolled;
    const refreshMs = isPolled ? POLLED_REFRESH_MS : HISTORY_REFRESH_MS;
    if (selected && chart.isLive && Date.now() - loadedAt >= refreshMs) load();
  }, 1000);
}

translatePage();
startSession(start);

// for the console and the browser tests
globalThis.doorstepSeries = () => ({
  name: selected?.name ?? null,
  xs: [...chart.xs],
  ys: [...chart.ys],
  from: chart.from,
  to: chart.to,
  isLive: chart.isLive,
  draws: chart.draws,
  events: selected?.events ?? 0,
  secondYs: [...secondChart.ys],
  held: selected ? selected.data.xs.length + selected.recent.xs.length + selected.pending.length : 0,
});
