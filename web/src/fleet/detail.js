// One driver: what they do, how their device is, and their last half hour on the map.
import { ago, DRIVER_STATES, DUTIES, el, PRESENCES } from "../words.js";
import { ask } from "./asking.js";

const $ = (id) => document.getElementById(id);
const TRACK_MS = 1_800_000;
const TRACK_EVERY_MS = 15_000;

export class Detail {
  #id = null;
  #trackAt = 0;

  constructor({ roster, drawTrack, openPast, close, seen }) {
    Object.assign(this, { roster, drawTrack, openPast, close, seen });
  }

  show(driverId) {
    if (driverId === this.#id) return;
    this.#id = driverId;
    this.#trackAt = 0;
    $("detail").hidden = !driverId;
    $("detail").replaceChildren();
    this.drawTrack([]);
    if (driverId) this.refresh().catch(() => {}); // asked again in two seconds
  }

  async refresh() {
    const id = this.#id;
    if (!id) return;
    const driver = await ask(`/drivers/${encodeURIComponent(id)}`);
    if (id !== this.#id) return;
    this.#draw(driver);
    this.seen(driver);
    if (Date.now() - this.#trackAt < TRACK_EVERY_MS) return;
    this.#trackAt = Date.now();
    const now = this.roster.now();
    const range = [now - TRACK_MS, now + 120_000].map((ms) => new Date(ms).toISOString());
    const page = await ask(`/drivers/${encodeURIComponent(id)}/history?from=${range[0]}&to=${range[1]}`);
    if (id !== this.#id) return;
    const of = Object.fromEntries(page.columns.map((name, n) => [name, n]));
    const line = page.fixes.filter((row) => !row[of.jump]);
    this.drawTrack(line.map((row) => [row[of.lon_deg], row[of.lat_deg]]));
  }

  #draw(driver) {
    const { position, battery } = driver;
    const speed = position?.properties.speed_mps;
    const facts = [
      ["State", DRIVER_STATES[driver.state][0]],
      ["Duty", DUTIES[driver.duty][0]],
      ["Presence", PRESENCES[driver.presence][0]],
      ["Last seen", position ? ago(position.properties.age_s) : "never"],
      ["Speed", speed === null || speed === undefined ? "–" : `${Math.round(speed * 3.6)} km/h`],
      ["Battery", battery === null ? "–" : `${Math.round(battery * 100)} %`],
      ["Order", driver.order_id ? driver.order_id.slice(0, 8) : "none"],
    ];
    const list = facts.flatMap(([name, fact]) => [el("dt", {}, name), el("dd", {}, fact)]);
    const known = $("detail").querySelector("dl");
    if (known) return known.replaceChildren(...list);
    const named = driver.name && driver.name !== driver.driver_id;
    $("detail").replaceChildren(
      el(
        "h2",
        {},
        el("span", {}, named ? `${driver.driver_id} · ${driver.name}` : driver.driver_id),
        el("button", { type: "button", "aria-label": "Close", onclick: this.close }, "✕"),
      ),
      el("dl", {}, ...list),
      el(
        "div",
        { class: "actions" },
        el("button", { type: "button", onclick: () => this.openPast(driver.driver_id) }, "Past of this driver"),
      ),
    );
  }
}
