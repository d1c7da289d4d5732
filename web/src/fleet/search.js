// Search over the whole fleet: drivers by id or name, orders by id or words of their details, ended
// ones as well. Arrow keys move in the results.
import { getJson } from "../api.js";
import { el } from "../elements.js";
import { ORDER_STATES, SHOWN_STATES, shownState } from "../labels.js";
import { say } from "./texts.js";

const $ = (id) => document.getElementById(id);
const DEBOUNCE_MS = 250;
const MAX_RESULTS = 8;

/** `selectDriver` and `selectOrder` get what was found. */
export function createSearch({ selectDriver, selectOrder }) {
  let timer = 0;
  let searches = 0;

  async function find() {
    const text = $("query").value.trim();
    const search = (searches += 1);
    const found = text
      ? await getJson(`/fleet/search?q=${encodeURIComponent(text)}&limit=${MAX_RESULTS}`).catch(() => null)
      : { drivers: [], orders: [] };
    if (search !== searches) return; // outdated by a later input
    if (!found) return void ($("search-status").textContent = say("No response."));
    const count = found.drivers.length + found.orders.length;
    $("search-status").textContent = text ? say("{} found", count) : "";
    $("results").replaceChildren(
      ...found.drivers.map((one) =>
        result(SHOWN_STATES[shownState(one.state, one.is_returning)], one.driver_id, one.name, () => selectDriver(one)),
      ),
      ...found.orders.map((one) =>
        result(ORDER_STATES[one.state], one.order_id.slice(0, 8), orderText(one), () => selectOrder(one)),
      ),
      text && !count ? el("li", { class: "muted small" }, say("Nothing found.")) : "",
    );
  }

  function result({ label, colour }, id, name, onSelect) {
    const openResult = () => {
      $("query").value = "";
      find();
      onSelect();
    };
    const button = el(
      "button",
      { type: "button", onclick: openResult },
      el("span", { class: "dot", color: colour }),
      el("span", { class: "mono" }, id),
      el("span", { class: "muted small" }, name && name !== id ? `${name} · ${say(label)}` : say(label)),
    );
    return el("li", {}, button);
  }

  $("query").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(find, DEBOUNCE_MS);
  });
  $("search").addEventListener("submit", async (event) => {
    event.preventDefault();
    clearTimeout(timer);
    await find();
    $("results").querySelector("button")?.click();
  });
  $("search").addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape" && $("results").childElementCount) {
      event.stopPropagation();
      $("query").value = "";
      $("query").focus();
      find();
    }
    if (!by) return;
    event.preventDefault();
    const stops = [$("query"), ...$("results").querySelectorAll("button")];
    stops[Math.max(0, stops.indexOf(document.activeElement) + by)]?.focus();
  });
}

function orderText({ driver_id, customer_name, external_id, address }) {
  const courier = driver_id ?? say("no courier");
  return [say("Order"), external_id, customer_name, address, courier].filter(Boolean).join(" · ");
}
