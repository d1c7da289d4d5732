// A day's report of a city: what was ordered, how long it took, who drove how far. The choice is in
// the address.
import { ApiProblem, fetchAsStaff, getJson, showSignIn, startSession, Unauthorized } from "./api.js";
import { el } from "./elements.js";
import { failureText } from "./refusals.js";
import { sections } from "./reports/tables.js";
import { language, locale, say, translatePage } from "./reports/texts.js";

const RESPONSE_TIMEOUT_MS = 120_000; // the kilometres of 2,000 drivers
const $ = (id) => document.getElementById(id);
let cities = [];
let request = null;

/** Today in a city, as YYYY-MM-DD. */
function today(timeZone) {
  return new Intl.DateTimeFormat("sv-SE", { timeZone, dateStyle: "short" }).format(new Date());
}

/** A day's text, of YYYY-MM-DD. */
function dayText(date) {
  if (language === "en") return date;
  return new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeZone: "UTC" }).format(new Date(`${date}T00:00:00Z`));
}

async function start() {
  ({ cities } = await getJson("/cities"));
  const wanted = new URLSearchParams(location.search);
  $("city").replaceChildren(...cities.map(({ name, title }) => el("option", { value: name }, title)));
  if (cities.some(({ name }) => name === wanted.get("city"))) $("city").value = wanted.get("city");
  const city = cities.find(({ name }) => name === $("city").value);
  $("date").value = wanted.get("date") ?? today(city?.time_zone ?? "UTC");
  await show();
}

async function show() {
  const [city, date] = [$("city").value, $("date").value];
  if (!city || !date) return;
  const query = new URLSearchParams({ city });
  history.replaceState(null, "", `?${new URLSearchParams({ city, date })}`);
  $("csv").href = `/reports/days/${date}.csv?${query}`;
  $("status").textContent = say("Counting…");
  $("problem").textContent = "";
  $("report").hidden = true;
  request?.abort();
  const mine = (request = new AbortController());
  try {
    const signal = AbortSignal.any([mine.signal, AbortSignal.timeout(RESPONSE_TIMEOUT_MS)]);
    const report = await (await fetchAsStaff(`/reports/days/${date}?${query}`, { signal })).json();
    if (mine !== request) return;
    const isOver = Date.parse(report.to_at) <= Date.parse(report.read_at);
    $("status").textContent = `${$("city").selectedOptions[0].text}, ${dayText(date)}, ${report.time_zone}${isOver ? "" : say(": the day is not over")}`;
    $("report").replaceChildren(...sections(report));
    $("report").hidden = false;
  } catch (error) {
    if (mine !== request) return;
    if (error instanceof Unauthorized) return showSignIn();
    $("status").textContent = "";
    $("problem").textContent = error instanceof ApiProblem ? failureText(error) : say("The server does not answer. Choose the day again.");
  }
}

translatePage();
startSession(() => {
  $("choice").addEventListener("change", show);
  $("choice").addEventListener("submit", (event) => event.preventDefault());
  $("print").addEventListener("click", () => print());
  start().catch((error) => {
    if (error instanceof Unauthorized) return showSignIn();
    $("problem").textContent = say("The server does not answer. Reload the page.");
  });
});
