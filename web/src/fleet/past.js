// The past: a driver, or all in view, played like a film; and a driver's range as a file.
import { el } from "../words.js";
import { ask, fetchAsStaff, Problem, Refused, showTheDoor } from "./asking.js";

const $ = (id) => document.getElementById(id);
const HOUR_MS = 3_600_000;
const GAP_MS = 300_000; // who was silent for longer is not shown in between
const MOST_FIXES = 50_000; // of one driver: two days at one every 4 s
const EVERYONE = "";

export class Past {
  #tracks = new Map(); // driver_id: [[at_ms, lon, lat], …]
  #from = 0;
  #to = 0;
  #at = 0;
  #playing = false;
  #lastFrame = 0;
  #loads = 0;

  /** `draw(places | null)`: [[id, lon, lat]] of a moment, null for "live again". */
  constructor({ draw, drawTrack, viewBox }) {
    Object.assign(this, { draw, drawTrack, viewBox, isOpen: false });
    const form = $("past-form");
    this.fields = form.elements;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#load();
    });
    $("past-button").addEventListener("click", () => (this.isOpen ? this.close() : this.open(null)));
    $("past-close").addEventListener("click", () => this.close());
    $("download").addEventListener("click", () => this.#download());
    $("play").addEventListener("click", () => this.#play(!this.#playing));
    $("scrub").addEventListener("input", () => {
      this.#go(this.#from + ((this.#to - this.#from) * $("scrub").value) / $("scrub").max);
    });
    this.fields.who.addEventListener("change", () => this.#whoChanged());
    const frame = (now) => {
      if (this.#playing) this.#step(now - this.#lastFrame);
      this.#lastFrame = now;
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  open(driverId) {
    if (!this.isOpen) {
      const now = Date.now();
      this.fields.from.value = localTime(now - HOUR_MS);
      this.fields.to.value = localTime(now);
    }
    this.isOpen = true;
    $("past").hidden = false;
    $("past-button").setAttribute("aria-expanded", "true");
    this.offer(driverId);
    if (driverId) this.fields.who.value = driverId;
    this.#whoChanged();
    this.fields.who.focus();
  }

  close() {
    this.isOpen = false;
    this.#play(false);
    this.#loads += 1; // what is on its way comes too late
    this.#tracks.clear();
    $("past").hidden = $("player").hidden = true;
    $("past-said").textContent = "";
    $("past-button").setAttribute("aria-expanded", "false");
    $("past-button").focus();
    this.drawTrack([]);
    this.draw(null);
  }

  /** The chosen driver can be chosen here too. */
  offer(driverId) {
    const { who } = this.fields;
    const kept = who.value;
    const drivers = [...new Set([driverId, kept].filter(Boolean))];
    who.replaceChildren(
      el("option", { value: EVERYONE }, "All in view"),
      ...drivers.map((one) => el("option", { value: one }, one)),
    );
    who.value = drivers.includes(kept) ? kept : EVERYONE;
    this.#whoChanged();
  }

  #whoChanged() {
    $("download").disabled = this.fields.kind.disabled = this.fields.who.value === EVERYONE;
  }

  #range() {
    const from = new Date(this.fields.from.value);
    const to = new Date(this.fields.to.value);
    if (from < to) return { from, to, query: `from=${from.toISOString()}&to=${to.toISOString()}` };
    this.#say("The end must come after the beginning.");
    return null;
  }

  async #load() {
    const range = this.#range();
    if (!range) return;
    const mine = (this.#loads += 1);
    const driverId = this.fields.who.value;
    this.#play(false);
    this.#say("Reading …");
    try {
      const [tracks, more] = driverId
        ? await oneDriver(driverId, range.query)
        : await allInView(this.viewBox(), range.query);
      if (mine !== this.#loads) return;
      this.#tracks = tracks;
      const fixes = [...tracks.values()].flat();
      if (!fixes.length) {
        $("player").hidden = true;
        this.draw([]);
        return this.#say("Nothing was heard in that time.");
      }
      this.#from = fixes.reduce((least, [at]) => Math.min(least, at), Infinity);
      this.#to = fixes.reduce((most, [at]) => Math.max(most, at), 0);
      $("player").hidden = false;
      this.drawTrack(driverId ? tracks.get(driverId).map(([, lon, lat]) => [lon, lat]) : []);
      const drivers = tracks.size === 1 ? "1 driver" : `${tracks.size} drivers`;
      this.#say(`${fixes.length} places of ${drivers}${more ? ", and there are more" : ""}.`);
      this.#go(this.#from);
    } catch (error) {
      this.#fail(error);
    }
  }

  async #download() {
    const range = this.#range();
    const driverId = this.fields.who.value;
    if (!range || !driverId) return;
    const kind = this.fields.kind.value.toLowerCase();
    this.#say("Reading …");
    try {
      const path = `/drivers/${encodeURIComponent(driverId)}/history.${kind}?${range.query}`;
      const answer = await fetchAsStaff(path, { signal: undefined });
      const href = URL.createObjectURL(await answer.blob());
      const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"))?.[1];
      el("a", { href, download: name ?? `${driverId}.${kind}` }).click();
      setTimeout(() => URL.revokeObjectURL(href), 60_000);
      this.#say(`${name} is there.`);
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error) {
    if (error instanceof Refused) showTheDoor(error.message);
    const said = error instanceof Problem && error.problem.errors?.[0]?.msg;
    this.#say(said ? `Not possible: the end ${said}.` : "No answer; try again.");
  }

  #play(playing) {
    if (playing && this.#at >= this.#to) this.#at = this.#from;
    this.#playing = playing;
    $("play").textContent = playing ? "Pause" : "Play";
  }

  #step(passedMs) {
    const next = this.#at + passedMs * Number($("speed").value);
    this.#go(Math.min(next, this.#to));
    if (next >= this.#to) this.#play(false);
  }

  #go(at) {
    this.#at = at;
    const scrub = $("scrub");
    const told = new Date(at).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });
    scrub.value = Math.round((scrub.max * (at - this.#from)) / (this.#to - this.#from || 1));
    if ($("moment").value !== told) {
      $("moment").value = told;
      scrub.setAttribute("aria-valuetext", told);
    }
    const places = [];
    for (const [id, fixes] of this.#tracks) {
      const place = placeAt(fixes, at);
      if (place) places.push([id, ...place]);
    }
    this.draw(places);
  }

  #say(text) {
    $("past-said").textContent = text;
  }
}

async function oneDriver(driverId, query) {
  const path = `/drivers/${encodeURIComponent(driverId)}/history?${query}`;
  const track = [];
  let cursor = "";
  do {
    const page = await ask(path + (cursor && `&cursor=${encodeURIComponent(cursor)}`));
    const of = Object.fromEntries(page.columns.map((name, n) => [name, n]));
    for (const row of page.fixes) {
      if (!row[of.jump]) track.push([row[of.fix_at_ms], row[of.lon_deg], row[of.lat_deg]]);
    }
    cursor = page.next_cursor ?? "";
  } while (cursor && track.length < MOST_FIXES);
  return [new Map([[driverId, track]]), Boolean(cursor)];
}

async function allInView(box, query) {
  const answer = await ask(`/fleet/history?bbox=${box.join(",")}&${query}`);
  const tracks = new Map(answer.driver_ids.map((id) => [id, []]));
  for (const [n, at, lon, lat] of answer.fixes) {
    tracks.get(answer.driver_ids[n]).push([at, lon, lat]);
  }
  return [tracks, answer.more];
}

/** Where somebody was: between the fix before and the one after, nowhere in a long silence. */
function placeAt(fixes, at) {
  let low = 0;
  let high = fixes.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (fixes[middle][0] <= at) low = middle + 1;
    else high = middle;
  }
  const before = fixes[low - 1];
  if (!before) return null;
  const after = fixes[low];
  if (!after) return at - before[0] > GAP_MS ? null : [before[1], before[2]];
  if (after[0] - before[0] > GAP_MS) return at - before[0] > GAP_MS ? null : [before[1], before[2]];
  const part = (at - before[0]) / (after[0] - before[0]);
  return [1, 2].map((n) => before[n] + (after[n] - before[n]) * part);
}

function localTime(ms) {
  const at = new Date(ms);
  return new Date(ms - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
