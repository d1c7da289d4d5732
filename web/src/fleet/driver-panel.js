// The selected driver: state, device, and the track of the last half hour.
import { getJson } from "../api.js";
import { el } from "../elements.js";
import { ago, DRIVER_STATES, DUTIES, PRESENCES } from "../labels.js";

const $ = (id) => document.getElementById(id);
const TRACK_MS = 1_800_000;
const TRACK_EVERY_MS = 15_000;

export class DriverPanel {
  #id = null;
  #trackAt = 0;

  constructor({ index, drawTrack, openPlayback, close, onDriver }) {
    Object.assign(this, { index, drawTrack, openPlayback, close, onDriver });
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
    const driver = await getJson(`/drivers/${encodeURIComponent(id)}`);
    if (id !== this.#id) return;
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
    const facts = [
      ["State", DRIVER_STATES[driver.state].label],
      ["Duty", DUTIES[driver.duty].label],
      ["Presence", PRESENCES[driver.presence].label],
      ["Last seen", position ? ago(position.properties.age_s) : "never"],
      ["Speed", speed === null || speed === undefined ? "–" : `${Math.round(speed * 3.6)} km/h`],
      ["Battery", battery === null ? "–" : `${Math.round(battery * 100)} %`],
      ["Phone app", phoneFact(driver.phone_app)],
      ["Order", driver.order_id ? driver.order_id.slice(0, 8) : "none"],
    ];
    const list = facts.flatMap(([name, fact]) => [el("dt", {}, name), el("dd", {}, fact)]);
    const shown = $("driver").querySelector("dl");
    if (shown) return shown.replaceChildren(...list);
    const hasName = driver.name && driver.name !== driver.driver_id;
    $("driver").replaceChildren(
      el(
        "h2",
        {},
        el("span", {}, hasName ? `${driver.driver_id} · ${driver.name}` : driver.driver_id),
        el("button", { type: "button", "aria-label": "Close", onclick: this.close }, "✕"),
      ),
      el("dl", {}, ...list),
      el(
        "div",
        { class: "actions" },
        el("button", { type: "button", onclick: () => this.openPlayback(driver.driver_id) }, "Past of this driver"),
      ),
    );
  }
}

/** The phone app, and when it was last heard of. */
function phoneFact(phone) {
  if (!phone) return "no app";
  if (phone.state === "invited") return "invited, never heard of";
  return `${phone.app}, heard of ${ago((Date.now() - Date.parse(phone.heard_at)) / 1000)}`;
}
