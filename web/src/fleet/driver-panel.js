// The selected driver: state, device, stops in their order, and the track of the last half hour.
import { AnswerOrder, getJson } from "../api.js";
import { el } from "../elements.js";
import { DUTIES, PRESENCES, SHOWN_STATES, shownState } from "../labels.js";
import { say, since } from "./texts.js";
import { drawStops } from "./stops.js";

const $ = (id) => document.getElementById(id);
const TRACK_MS = 1_800_000;
const TRACK_EVERY_MS = 15_000;

export class DriverPanel {
  #id = null;
  #trackAt = 0;
  #answers = new AnswerOrder();

  constructor({ index, drawTrack, openPlayback, close, onDriver, selectOrder, notify }) {
    Object.assign(this, { index, drawTrack, openPlayback, close, onDriver, selectOrder, notify });
  }

  show(driverId) {
    if (driverId === this.#id) return;
    this.#id = driverId;
    this.#trackAt = 0;
    $("driver").hidden = !driverId;
    $("driver").replaceChildren();
    this.drawTrack([]);
    if (driverId) this.refresh().catch(() => {}); // retried after two seconds
  }

  async refresh() {
    const id = this.#id;
    if (!id) return;
    const isNewer = this.#answers.begin();
    const driver = await getJson(`/drivers/${encodeURIComponent(id)}`);
    if (id !== this.#id || !isNewer()) return;
    this.#draw(driver);
    this.onDriver(driver);
    if (Date.now() - this.#trackAt < TRACK_EVERY_MS) return;
    this.#trackAt = Date.now();
    const now = this.index.now();
    const range = [now - TRACK_MS, now + 120_000].map((ms) => new Date(ms).toISOString());
    const page = await getJson(`/drivers/${encodeURIComponent(id)}/history?from=${range[0]}&to=${range[1]}`);
    if (id !== this.#id) return;
    const column = Object.fromEntries(page.columns.map((name, n) => [name, n]));
    const line = page.fixes.filter((row) => !row[column.jump]);
    this.drawTrack(line.map((row) => [row[column.lon_deg], row[column.lat_deg]]));
  }

  #draw(driver) {
    const { position, battery } = driver;
    const speed = position?.properties.speed_mps;
    const state = shownState(driver.state, driver.is_returning);
    const facts = [
      ["State", say(SHOWN_STATES[state].label)],
      ["Duty", say(DUTIES[driver.duty].label)],
      ["Presence", say(PRESENCES[driver.presence].label)],
      ["Last seen", position ? since(position.properties.age_s) : say("never")],
      ["Speed", speed === null || speed === undefined ? "–" : `${Math.round(speed * 3.6)} km/h`],
      ["Battery", battery === null ? "–" : `${Math.round(battery * 100)} %`],
      ["Telephone", driver.phone],
      ["Phone app", phoneFact(driver.phone_app)],
      ["Order", driver.orders?.length ? null : (driver.order_id?.slice(0, 8) ?? say("none"))],
    ].filter(([, fact]) => fact);
    const list = facts.flatMap(([name, fact]) => [el("dt", {}, say(name)), el("dd", {}, fact)]);
    if (!$("driver").querySelector("dl")) this.#build(driver);
    $("driver").querySelector("dl").replaceChildren(...list);
    drawStops(driver, { selectOrder: this.selectOrder, notify: this.notify, refresh: () => this.refresh() });
  }

  #build(driver) {
    const hasName = driver.name && driver.name !== driver.driver_id;
    $("driver").replaceChildren(
      el(
        "h2",
        {},
        el("span", {}, hasName ? `${driver.driver_id} · ${driver.name}` : driver.driver_id),
        el("button", { type: "button", class: "close", "aria-label": say("Close"), onclick: this.close }, "✕"),
      ),
      el("dl"),
      el("div", { id: "stops" }),
      el(
        "div",
        { class: "actions" },
        el("button", { type: "button", onclick: () => this.openPlayback(driver.driver_id) }, say("Past of this driver")),
      ),
    );
  }
}

/** The phone app, and when it was last heard of. */
function phoneFact(phone) {
  if (!phone) return say("no app");
  if (phone.state === "invited") return say("invited, never heard of");
  return say("{}, heard of {}", phone.app, since((Date.now() - Date.parse(phone.heard_at)) / 1000));
}
