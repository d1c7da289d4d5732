// Playback of past positions of one driver, or of all in view; export of a driver's history.
import { ApiProblem, fetchAsStaff, getJson, showSignIn, Unauthorized } from "../api.js";
import { el } from "../elements.js";
import { complaintText } from "../refusals.js";
import { dateAndTime } from "../times.js";
import { say } from "./texts.js";
import { requestBox } from "./boxes.js";

const $ = (id) => document.getElementById(id);
const HOUR_MS = 3_600_000;
const MAX_GAP_MS = 300_000; // no position is shown within a longer gap
const MAX_FIXES = 50_000; // of one driver: two days at one every 4 s
const ALL_DRIVERS = "";

export class Playback {
  #tracks = new Map(); // driver_id: [[at_ms, lon, lat], …]
  #from = 0;
  #to = 0;
  #at = 0;
  #playing = false;
  #lastFrame = 0;
  #loads = 0;

  /**
   * `draw(positions, at)` gets the [[driver_id, lon, lat]] of an instant, in epoch ms;
   * `loadStates(driverIds, from, to)` is called before.
   */
  constructor({ draw, drawTrack, loadStates, viewBox, onOpenChange }) {
    Object.assign(this, { draw, drawTrack, loadStates, viewBox, onOpenChange, isOpen: false });
    const form = $("playback-form");
    this.fields = form.elements;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#load();
    });
    $("playback-button").addEventListener("click", () => (this.isOpen ? this.close() : this.open(null)));
    $("playback-close").addEventListener("click", () => this.close());
    $("download").addEventListener("click", () => this.#download());
    $("play").addEventListener("click", () => this.#setPlaying(!this.#playing));
    $("seek").addEventListener("input", () => {
      this.#seek(this.#from + ((this.#to - this.#from) * $("seek").value) / $("seek").max);
    });
    this.fields.driver.addEventListener("change", () => this.#updateExport());
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
    const wasOpen = this.isOpen;
    this.isOpen = true;
    $("playback").hidden = false;
    $("playback-button").setAttribute("aria-expanded", "true");
    this.offerDriver(driverId);
    if (driverId) this.fields.driver.value = driverId;
    this.#updateExport();
    this.fields.driver.focus();
    if (!wasOpen) this.onOpenChange();
  }

  close() {
    this.isOpen = false;
    this.#setPlaying(false);
    this.#loads += 1; // discards pending responses
    this.#tracks.clear();
    $("playback").hidden = $("player").hidden = true;
    $("playback-status").textContent = "";
    $("playback-button").setAttribute("aria-expanded", "false");
    $("playback-button").focus();
    this.drawTrack([]);
    this.onOpenChange();
  }

  /** Offer the selected driver in the form. */
  offerDriver(driverId) {
    const { driver } = this.fields;
    const current = driver.value;
    const drivers = [...new Set([driverId, current].filter(Boolean))];
    driver.replaceChildren(
      el("option", { value: ALL_DRIVERS }, say("All in view")),
      ...drivers.map((one) => el("option", { value: one }, one)),
    );
    driver.value = drivers.includes(current) ? current : ALL_DRIVERS;
    this.#updateExport();
  }

  #updateExport() {
    $("download").disabled = this.fields.kind.disabled = this.fields.driver.value === ALL_DRIVERS;
  }

  #range() {
    const from = new Date(this.fields.from.value);
    const to = new Date(this.fields.to.value);
    if (from < to) return { from, to, query: `from=${from.toISOString()}&to=${to.toISOString()}` };
    this.#setStatus(say("The end must come after the beginning."));
    return null;
  }

  async #load() {
    const range = this.#range();
    if (!range) return;
    const load = (this.#loads += 1);
    const driverId = this.fields.driver.value;
    this.#setPlaying(false);
    this.#setStatus(say("Loading…"));
    try {
      const [tracks, hasMore] = driverId
        ? await loadDriver(driverId, range.query)
        : await loadView(this.viewBox(), range.query);
      if (load !== this.#loads) return;
      await this.loadStates([...tracks.keys()], range.from, range.to);
      if (load !== this.#loads) return;
      this.#tracks = tracks;
      const fixes = [...tracks.values()].flat();
      if (!fixes.length) {
        $("player").hidden = true;
        this.draw([], null);
        return this.#setStatus(say("No positions in this range."));
      }
      this.#from = fixes.reduce((least, [at]) => Math.min(least, at), Infinity);
      this.#to = fixes.reduce((most, [at]) => Math.max(most, at), 0);
      $("player").hidden = false;
      this.drawTrack(driverId ? tracks.get(driverId).map(([, lon, lat]) => [lon, lat]) : []);
      const drivers = tracks.size === 1 ? say("1 driver") : say("{} drivers", tracks.size);
      const rest = hasMore ? say("; the range has more") : "";
      this.#setStatus(say("{} positions of {}{}.", fixes.length, drivers, rest));
      this.#seek(this.#from);
    } catch (error) {
      if (load === this.#loads) this.#fail(error);
    }
  }

  async #download() {
    const range = this.#range();
    const driverId = this.fields.driver.value;
    if (!range || !driverId) return;
    const kind = this.fields.kind.value.toLowerCase();
    this.#setStatus(say("Loading…"));
    try {
      const path = `/drivers/${encodeURIComponent(driverId)}/history.${kind}?${range.query}`;
      const response = await fetchAsStaff(path, { signal: undefined });
      const href = URL.createObjectURL(await response.blob());
      const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition"))?.[1];
      el("a", { href, download: name ?? `${driverId}.${kind}` }).click();
      setTimeout(() => URL.revokeObjectURL(href), 60_000);
      this.#setStatus(say("Downloaded {}.", name));
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error) {
    if (error instanceof Unauthorized) showSignIn();
    const complaint = error instanceof ApiProblem && error.problem.errors?.[0];
    this.#setStatus(complaint ? say("Not possible: the end {}.", complaintText(complaint)) : say("No response; try again."));
  }

  #setPlaying(playing) {
    if (playing && this.#at >= this.#to) this.#at = this.#from;
    this.#playing = playing;
    $("play").textContent = playing ? say("Pause") : say("Play");
  }

  #step(passedMs) {
    const next = this.#at + passedMs * Number($("speed").value);
    this.#seek(Math.min(next, this.#to));
    if (next >= this.#to) this.#setPlaying(false);
  }

  #seek(at) {
    this.#at = at;
    const slider = $("seek");
    const label = dateAndTime(at);
    slider.value = Math.round((slider.max * (at - this.#from)) / (this.#to - this.#from || 1));
    if ($("instant").value !== label) {
      $("instant").value = label;
      slider.setAttribute("aria-valuetext", label);
    }
    const positions = [];
    for (const [id, fixes] of this.#tracks) {
      const place = positionAt(fixes, at);
      if (place) positions.push([id, ...place]);
    }
    this.draw(positions, at);
  }

  #setStatus(text) {
    $("playback-status").textContent = text;
  }
}

async function loadDriver(driverId, query) {
  const path = `/drivers/${encodeURIComponent(driverId)}/history?${query}`;
  const track = [];
  let cursor = "";
  do {
    const page = await getJson(path + (cursor && `&cursor=${encodeURIComponent(cursor)}`));
    const column = Object.fromEntries(page.columns.map((name, n) => [name, n]));
    for (const row of page.fixes) {
      if (!row[column.jump]) track.push([row[column.fix_at_ms], row[column.lon_deg], row[column.lat_deg]]);
    }
    cursor = page.next_cursor ?? "";
  } while (cursor && track.length < MAX_FIXES);
  return [new Map([[driverId, track]]), Boolean(cursor)];
}

async function loadView(box, query) {
  const response = await getJson(`/fleet/history?bbox=${requestBox(box)}&${query}`);
  const tracks = new Map(response.driver_ids.map((id) => [id, []]));
  for (const [n, at, lon, lat] of response.fixes) {
    tracks.get(response.driver_ids[n]).push([at, lon, lat]);
  }
  return [tracks, response.more];
}

/** The position at an instant, interpolated between two fixes; null within a long gap. */
function positionAt(fixes, at) {
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
  if (!after) return at - before[0] > MAX_GAP_MS ? null : [before[1], before[2]];
  if (after[0] - before[0] > MAX_GAP_MS) return at - before[0] > MAX_GAP_MS ? null : [before[1], before[2]];
  const part = (at - before[0]) / (after[0] - before[0]);
  return [1, 2].map((n) => before[n] + (after[n] - before[n]) * part);
}

function localTime(ms) {
  const at = new Date(ms);
  return new Date(ms - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
