// The tables of a day's report.
import { el } from "../elements.js";
import { duration } from "../labels.js";

const STAGES = {
  confirm: "Until confirmed",
  assign: "Until a courier is found",
  to_restaurant: "To the restaurant",
  at_restaurant: "At the restaurant",
  to_customer: "To the customer",
  at_customer: "At the door",
  whole: "In all",
};
const REASONS = {
  customer_absent: "Customer absent",
  wrong_address: "Wrong address",
  refused: "Refused",
  damaged: "Damaged",
  accident: "Accident",
  other: "Other",
};
const ACTORS = { staff: "staff", driver: "courier", customer: "customer" };
const time = (seconds) => (seconds === null ? "–" : duration(seconds));

/** The sections of a report. */
export function sections(report) {
  const { total, restaurants, reasons, drivers } = report;
  const names = new Map(restaurants.map((one) => [one.restaurant_id, one.name]));
  return [
    el("h2", {}, "Orders"),
    tiles([
      ["Created", total.orders],
      ["Delivered", total.delivered],
      ["Failed", total.failed],
      ["Cancelled", total.cancelled],
      ["Still open", total.open],
    ]),
    el("h2", {}, "Against the promised window"),
    tiles([
      ["With a window", total.promise.delivered],
      ["In it", total.promise.in_window],
      ["Early", total.promise.early],
      ["Late", total.promise.late],
      ["Late by, median", time(total.promise.late_p50_s)],
      ["Late by, most", time(total.promise.late_max_s)],
      ["Open and late", total.promise.open_late],
    ]),
    el("h2", {}, "Time per stage"),
    table(
      "Time per stage",
      ["Stage", "Orders", "Median", "90 % within"],
      total.stages.map((one) => [STAGES[one.stage], one.orders, time(one.p50_s), time(one.p90_s)]),
    ),
    el("h2", {}, "Restaurants"),
    table(
      "Restaurants",
      ["Restaurant", "Orders", "Delivered", "Failed", "Cancelled", "Late", "At the restaurant", "In all"],
      restaurants.map((one) => [
        one.name,
        one.orders,
        one.delivered,
        one.failed,
        one.cancelled,
        one.promise.late,
        time(median(one, "at_restaurant")),
        time(median(one, "whole")),
      ]),
    ),
    el("h2", {}, "Failed and cancelled"),
    table(
      "Failed and cancelled",
      ["Restaurant", "What", "By", "Reason", "Orders"],
      reasons.map((one) => [
        names.get(one.restaurant_id) ?? String(one.restaurant_id),
        one.state === "failed" ? "Failed" : "Cancelled",
        ACTORS[one.by] ?? one.by,
        one.reason === null ? "none given" : (REASONS[one.reason] ?? one.reason),
        one.orders,
      ]),
    ),
    el("h2", {}, "Drivers"),
    table(
      "Drivers",
      ["Driver", "Orders", "Delivered", "Failed", "Cancelled", "Given up", "Kilometres"],
      drivers.map((one) => [
        one.name === one.driver_id ? one.name : `${one.name} (${one.driver_id})`,
        one.assignments,
        one.delivered,
        one.failed,
        one.cancelled,
        one.given_up,
        one.distance_km.toFixed(1),
      ]),
    ),
    report.more_drivers ? el("p", { class: "muted" }, "There are more drivers than a report shows.") : "",
  ];
}

function median(figures, stage) {
  return figures.stages.find((one) => one.stage === stage).p50_s;
}

function tiles(pairs) {
  return el("dl", { class: "tiles" }, ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
}

/** The first column names the row, the others are numbers, durations or short texts. */
function table(name, columns, rows) {
  if (rows.length === 0) return el("p", { class: "muted" }, "None.");
  const isNumber = columns.map((_, n) => typeof rows[0][n] === "number" || /^[\d–]/.test(rows[0][n]));
  const align = (n) => (isNumber[n] && n > 0 ? "number" : null);
  return el(
    "div",
    { class: "box", tabindex: "0", role: "region", "aria-label": name },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, ...columns.map((one, n) => el("th", { scope: "col", class: align(n) }, one)))),
      el(
        "tbody",
        {},
        ...rows.map((row) =>
          el(
            "tr",
            {},
            ...row.map((value, n) =>
              n === 0 ? el("th", { scope: "row" }, value) : el("td", { class: align(n) }, String(value)),
            ),
          ),
        ),
      ),
    ),
  );
}
