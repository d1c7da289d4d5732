// The page for admins of a machine without Grafana: alerts, the dashboards' charts, and Kafka. Read only.
import { ApiProblem, every, getJson, startSession } from "./api.js";
import { ConnectionBanner } from "./connection-banner.js";
import { el } from "./elements.js";
import { showKafka } from "./observe/kafka.js";
import { PanelChart } from "./observe/panel-chart.js";
import { locale, say, translatePage } from "./observe/texts.js";
import { failureText } from "./refusals.js";

const REFRESH_MS = 5000;
const PROMETHEUS = {
  up: "",
  down: say("Prometheus does not answer: its log has the reason."),
  absent: say("This stack runs without monitoring: ./run up --observe starts it."),
};
const ALERT_STATES = { firing: say("firing"), pending: say("pending") };
const $ = (id) => document.getElementById(id);
const banner = new ConnectionBanner($("connection-banner"));
let dashboards = [];
let charts = [];
let shown = null; // the tab
let respondedAt = Date.now();
let refreshes = 0; // the answer of one that a later one overtook is dropped

const selected = () => location.hash.slice(1) || dashboards[0]?.id || "kafka";

function drawTabs() {
  const tabs = [...dashboards, { id: "kafka", title: "Kafka" }];
  const links = tabs.map(({ id, title }) =>
    el("a", { href: `#${id}`, "aria-current": id === selected() ? "page" : null }, say(title)),
  );
  $("tabs").replaceChildren(...links);
}

function drawAlerts(alerts) {
  const lines = alerts.map(({ name, state, severity, summary, since }) =>
    el(
      "article",
      { class: `alert ${state}` },
      el("h2", {}, `${name} · ${ALERT_STATES[state] ?? state} · ${severity}`),
      el("p", { class: "small", lang: "en" }, summary),
      el("p", { class: "muted small" }, say("since {}", new Date(since).toLocaleTimeString(locale))),
    ),
  );
  $("alerts").replaceChildren(
    ...(lines.length || !dashboards.length ? lines : [el("p", { class: "muted small" }, say("No alert fires."))]),
  );
}

/** Show another tab, if the address names one. */
function switchTab() {
  if (shown === selected()) return;
  shown = selected();
  for (const chart of charts) chart.destroy();
  const panels = dashboards.find(({ id }) => id === shown)?.panels ?? [];
  charts = panels.map((panel) => new PanelChart(panel));
  $("panels").replaceChildren(...charts.map(({ element }) => element));
  $("kafka").hidden = shown !== "kafka";
}

function explain(error) {
  if (!(error instanceof ApiProblem)) return null; // the banner says it
  return error.status === 403 ? say("Only admins may see this page.") : failureText(error);
}

async function refresh() {
  const mine = (refreshes += 1);
  try {
    const overview = await getJson("/observe/overview");
    if (mine !== refreshes) return;
    dashboards = overview.dashboards;
    drawAlerts(overview.alerts);
    drawTabs();
    switchTab();
    const minutes = $("minutes").value;
    await Promise.all(charts.map((chart) => chart.load(minutes)));
    if (shown === "kafka") await showKafka($("kafka"));
    respondedAt = Date.now();
    if (mine !== refreshes) return;
    $("problem").textContent = PROMETHEUS[overview.prometheus];
    banner.update(null);
  } catch (error) {
    if (mine !== refreshes) return;
    const text = explain(error);
    if (text === null) banner.update(respondedAt);
    $("problem").textContent = text ?? "";
    throw error;
  } finally {
    $("problem").hidden = !$("problem").textContent;
  }
}

const refreshNow = () => refresh().catch(() => {}); // the next refresh leaves or explains

translatePage();
startSession(() => {
  addEventListener("hashchange", refreshNow);
  $("minutes").addEventListener("change", refreshNow);
  every(REFRESH_MS, refresh);
});
