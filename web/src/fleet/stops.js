// The stops of a driver with several orders, in their order, with buttons that move them.
import { el, fill } from "../elements.js";
import { ORDER_STATES } from "../labels.js";
import { failureText, send } from "./commands.js";
import { mayCommand } from "./rights.js";
import { say } from "./texts.js";

const $ = (id) => document.getElementById(id);

/** Draw `driver.orders`, which a server with one order per driver does not have. */
export function drawStops(driver, { selectOrder, notify, refresh }) {
  const stops = [...(driver.orders ?? [])].sort((a, b) => a.stop_no - b.stop_no);
  const ids = stops.map((one) => one.order_id);
  const move = async (at, by) => {
    const order = [...ids];
    [order[at], order[at + by]] = [order[at + by], order[at]];
    notify();
    try {
      await send("PUT", `/drivers/${encodeURIComponent(driver.driver_id)}/stops`, { order_ids: order });
      notify(say("Stops reordered."));
    } catch (error) {
      notify("", failureText(error));
    }
    await refresh();
    ($(`stop-${by < 0 ? "up" : "down"}-${ids[at]}`) ?? $(`stop-open-${ids[at]}`))?.focus();
  };
  fill($("stops"), [mayCommand(), ...stops.map(({ order_id, stop_no, state }) => [order_id, stop_no, state])], () =>
    stops.length
      ? [
          el("h3", {}, say("Stops")),
          el("ol", { class: "stops" }, ...stops.map((stop, n) => stopItem(stop, n, stops.length, { move, selectOrder }))),
        ]
      : [],
  );
}

function stopItem(stop, n, count, { move, selectOrder }) {
  const id = stop.order_id;
  const name = stop.customer?.name ?? stop.customer_name ?? stop.address ?? id.slice(0, 8);
  const button = (by, symbol, label) =>
    n + by < 0 || n + by >= count || !mayCommand()
      ? ""
      : el(
          "button",
          { type: "button", class: "move", id: `stop-${by < 0 ? "up" : "down"}-${id}`, "aria-label": say(label, name), onclick: () => move(n, by) },
          symbol,
        );
  return el(
    "li",
    {},
    el("b", {}, `${n + 1}`),
    el(
      "button",
      { type: "button", class: "open", id: `stop-open-${id}`, onclick: () => selectOrder({ order_id: id }) },
      `${name} · ${say(ORDER_STATES[stop.state]?.label ?? stop.state)}`,
    ),
    el("span", {}, button(-1, "↑", "Move {} up"), button(1, "↓", "Move {} down")),
  );
}
