// Search over the whole fleet: by a driver's id or name, or the start of an order's id.
import { getJson } from "../api.js";
import { el } from "../elements.js";
import { DRIVER_STATES, ORDER_STATES } from "../labels.js";

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
    if (!found) return void ($("search-status").textContent = "No response.");
    const count = found.drivers.length + found.orders.length;
    $("search-status").textContent = text ? `${count} found` : "";
    $("results").replaceChildren(
      ...found.drivers.map((one) =>
        result(DRIVER_STATES[one.state], one.driver_id, one.name, () => selectDriver(one)),
      ),
      ...found.orders.map((one) =>
        result(ORDER_STATES[one.state], one.order_id.slice(0, 8), `Order · ${one.driver_id ?? "no courier"}`, () =>
          selectOrder(one),
        ),
      ),
      text && !count ? el("li", { class: "muted small" }, "Nothing found.") : "",
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
      el("span", { class: "muted small" }, name && name !== id ? `${name} · ${label}` : label),
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
}
