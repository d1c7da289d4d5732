// Search over the whole fleet: a driver's id or name, or the beginning of an order's id.
import { DRIVER_STATES, el, ORDER_STATES } from "../words.js";
import { ask } from "./asking.js";

const $ = (id) => document.getElementById(id);
const WAIT_MS = 250; // after the last key

export function makeSearch(choose) {
  let timer = 0;
  let asked = 0;

  async function find() {
    const text = $("query").value.trim();
    const mine = (asked += 1);
    const found = text
      ? await ask(`/fleet/search?q=${encodeURIComponent(text)}&limit=8`).catch(() => null)
      : { drivers: [], orders: [] };
    if (mine !== asked) return; // something else was typed since
    if (!found) return void ($("found-said").textContent = "No answer.");
    const count = found.drivers.length + found.orders.length;
    $("found-said").textContent = text ? `${count} found` : "";
    $("found").replaceChildren(
      ...found.drivers.map((one) =>
        hit(DRIVER_STATES[one.state], one.driver_id, one.name, () =>
          choose(one.driver_id, one.order_id, one.lon_deg === null ? null : [one.lon_deg, one.lat_deg]),
        ),
      ),
      ...found.orders.map((one) =>
        hit(ORDER_STATES[one.state], one.order_id.slice(0, 8), `Order · ${one.driver_id ?? "no courier"}`, () =>
          choose(one.driver_id, one.order_id, null),
        ),
      ),
      text && !count ? el("li", { class: "soft small" }, "Nobody and nothing.") : "",
    );
  }

  function hit([word, colour], id, name, take) {
    const leave = () => {
      $("query").value = "";
      find();
      take();
    };
    const button = el(
      "button",
      { type: "button", onclick: leave },
      el("span", { class: "dot", color: colour }),
      el("span", { class: "mono" }, id),
      el("span", { class: "soft small" }, name && name !== id ? `${name} · ${word}` : word),
    );
    return el("li", {}, button);
  }

  $("query").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(find, WAIT_MS);
  });
  $("search").addEventListener("submit", async (event) => {
    event.preventDefault();
    clearTimeout(timer);
    await find();
    $("found").querySelector("button")?.click();
  });
}
