// The tables of a day's report.
import { el } from "../elements.js";
import { duration } from "../times.js";
import { decimal, say } from "./texts.js";

const STAGES = {
  confirm: say("Until confirmed"),
  assign: say("Until a courier is found"),
  to_restaurant: say("To the restaurant"),
  at_restaurant: say("At the restaurant"),
  to_customer: say("To the customer"),
  at_customer: say("At the door"),
  whole: say("In all"),
};
const REASONS = {
  customer_absent: say("Customer absent"),
  wrong_address: say("Wrong address"),
  refused: say("Refused"),
  damaged: say("Damaged"),
  accident: say("Accident"),
  other: say("Other"),
};
const ACTORS = { staff: say("staff"), driver: say("courier"), customer: say("customer") };
const time = (seconds) => (seconds === null ? "–" : duration(seconds));

/** The sections of a report. */
export function sections(report) {
  const { total, restaurants, reasons, drivers } = report;
  const names = new Map(restaurants.map((one) => [one.restaurant_id, one.name]));
  return [
    el("h2", {}, say("Orders")),
    tiles([
      [say("Created"), total.orders],
      [say("Delivered"), total.delivered],
      [say("Failed"), total.failed],
      [say("Cancelled"), total.cancelled],
      [say("Still open"), total.open],
    ]),
    el("h2", {}, say("Against the promised window")),
    tiles([
      [say("With a window"), total.promise.delivered],
      [say("In it"), total.promise.in_window],
      [say("Early"), total.promise.early],
      [say("Late"), total.promise.late],
      [say("Late by, median"), time(total.promise.late_p50_s)],
      [say("Late by, most"), time(total.promise.late_max_s)],
      [say("Open and late"), total.promise.open_late],
    ]),
    el("h2", {}, say("Time per stage")),
    table(
      say("Time per stage"),
      [say("Stage"), say("Orders"), say("Median"), say("90 % within")],
      total.stages.map((one) => [STAGES[one.stage], one.orders, time(one.p50_s), time(one.p90_s)]),
    ),
    el("h2", {}, say("Restaurants")),
    table(
      say("Restaurants"),
      [say("Restaurant"), say("Orders"), say("Delivered"), say("Failed"), say("Cancelled"), say("Late"), say("At the restaurant"), say("In all")],
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
    el("h2", {}, say("Failed and cancelled")),
    table(
      say("Failed and cancelled"),
      [say("Restaurant"), say("What"), say("By"), say("Reason"), say("Orders")],
      reasons.map((one) => [
        names.get(one.restaurant_id) ?? String(one.restaurant_id),
        one.state === "failed" ? say("Failed") : say("Cancelled"),
        ACTORS[one.by] ?? one.by,
        one.reason === null ? say("none given") : (REASONS[one.reason] ?? one.reason),
        one.orders,
      ]),
    ),
    el("h2", {}, say("Drivers")),
    table(
      say("Drivers"),
      [say("Driver"), say("Orders"), say("Delivered"), say("Failed"), say("Cancelled"), say("Given up"), say("Kilometres")],
      drivers.map((one) => [
        one.name === one.driver_id ? one.name : `${one.name} (${one.driver_id})`,
        one.assignments,
        one.delivered,
        one.failed,
        one.cancelled,
        one.given_up,
        decimal(one.distance_km.toFixed(1)),
      ]),
    ),
    report.more_drivers ? el("p", { class: "muted" }, say("There are more drivers than a report shows.")) : "",
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
  if (rows.length === 0) return el("p", { class: "muted" }, say("None."));
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
