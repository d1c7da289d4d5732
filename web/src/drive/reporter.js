// Makes this tab the driver's device: takes positions from the browser, and hands them to the device.
//
// One tab of a browser is the device, which a Web Lock decides. The next one takes over when it ends.
import { sendFixes } from "./api.js";
import { Device } from "./device.js";
import { IndexedDbJournal } from "./journal.js";
import { Sampler } from "./sampler.js";

const TICK_MS = 1000;
const OTHER_TAB_AFTER_MS = 500;
const HEARTBEAT_S = 25; // a browser may report nothing while the phone stands still; the evidence needs a fix in 30 s
const PRECISE = { enableHighAccuracy: true, maximumAge: 0 };
const POSITION_TIMEOUT_MS = 20_000;
const DECIMALS = 1e7; // 1 cm

export class Reporter {
  device = null; // of this tab
  isOtherTab = false;
  problem = null; // the name of a text
  #driverId;
  #onChange;
  #sampler = new Sampler();
  #watch = null;
  #wakeLock = null;
  #battery = null;
  #heardAtMs = 0;
  #takenAtMs = 0; // of the last position
  #ending = new AbortController();

  constructor(driverId, onChange) {
    this.#driverId = driverId;
    this.#onChange = onChange;
  }

  /** Become the device, now or when the other tab ends. */
  start() {
    const { signal } = this.#ending;
    if (!navigator.locks) return; // without HTTPS
    const later = setTimeout(() => {
      this.isOtherTab = true;
      this.#onChange();
    }, OTHER_TAB_AFTER_MS);
    navigator.locks
      .request(`doorstep-drive-${this.#driverId}`, { signal }, async () => {
        clearTimeout(later);
        this.isOtherTab = false;
        await this.#run(signal);
      })
      .catch((error) => {
        clearTimeout(later);
        if (error.name === "AbortError") return;
        this.problem = "noStorage";
        this.#onChange();
      });
    navigator.getBattery?.().then((battery) => {
      this.#battery = battery;
    });
  }

  /** End it: the fixes stay in the journal. */
  stop() {
    this.watch(false);
    this.#ending.abort();
  }

  /** Whether positions are wanted. */
  watch(isWanted) {
    this.isWanted = isWanted;
    this.#apply();
  }

  /** The network is back, or the session. */
  async retryNow() {
    await this.device?.retryNow();
  }

  async #run(signal) {
    const journal = new IndexedDbJournal(this.#driverId);
    const device = new Device({
      journal,
      send: (fixes) => sendFixes(this.#driverId, fixes),
      nowS: () => Date.now() / 1000,
      onChange: this.#onChange,
    });
    await device.open();
    this.device = device;
    this.#apply();
    this.#onChange();
    const timer = setInterval(() => this.#tick(), TICK_MS);
    await new Promise((resolve) => {
      signal.addEventListener("abort", resolve);
      if (signal.aborted) resolve();
    });
    clearInterval(timer);
    this.device = null;
    await device.pump();
    journal.close();
  }

  #apply() {
    const isWatching = Boolean(this.isWanted && this.device);
    if (isWatching && this.#watch === null) {
      this.#heardAtMs = Date.now();
      this.#watch = navigator.geolocation.watchPosition(this.#take, this.#fail, PRECISE);
    } else if (!isWatching && this.#watch !== null) {
      navigator.geolocation.clearWatch(this.#watch);
      this.#watch = null;
      this.problem = null;
    }
    this.#keepAwake();
  }

  #tick() {
    this.device?.pump();
    this.#keepAwake();
    if (this.#watch !== null && Date.now() - this.#heardAtMs > HEARTBEAT_S * 1000) {
      this.#heardAtMs = Date.now();
      const options = { ...PRECISE, timeout: POSITION_TIMEOUT_MS };
      navigator.geolocation.getCurrentPosition(this.#take, () => {}, options);
    }
  }

  #take = async ({ coords, timestamp }) => {
    if (this.device === null || this.#watch === null || timestamp === this.#takenAtMs) return;
    this.#takenAtMs = timestamp;
    this.#heardAtMs = Date.now();
    this.problem = null;
    try {
      for (const fix of this.#sampler.observe(this.#fixOf(coords, timestamp))) {
        await this.device?.write(fix);
      }
      await this.device?.pump();
    } catch {
      this.problem = "noStorage"; // the site's data were deleted, for example
    }
    this.#onChange();
  };

  #fail = ({ code }) => {
    this.problem = code === 1 ? "noPermission" : "noPosition";
    this.#onChange();
  };

  #fixOf(coords, timestamp) {
    const rounded = (value, unit) => (value === null ? undefined : Math.round(value * unit) / unit);
    return {
      fix_at: Math.round(timestamp),
      lat_deg: rounded(coords.latitude, DECIMALS),
      lon_deg: rounded(coords.longitude, DECIMALS),
      accuracy_m: rounded(coords.accuracy, 10),
      altitude_m: rounded(coords.altitude, 10),
      speed_mps: rounded(coords.speed, 100),
      heading_deg: Number.isFinite(coords.heading) ? rounded(coords.heading, 10) : undefined,
      battery: this.#battery ? rounded(this.#battery.level, 100) : undefined,
    };
  }

  /** Keep the screen on while positions are taken: the browser ends it when the page is hidden. */
  async #keepAwake() {
    const isWanted = this.#watch !== null && document.visibilityState === "visible";
    if (!isWanted) {
      const lock = this.#wakeLock;
      this.#wakeLock = null;
      await lock?.release();
    } else if (!this.#wakeLock || this.#wakeLock.released) {
      // Refused when the battery is low. The lock stands in for itself while it is requested.
      this.#wakeLock = { released: false, release() {} };
      this.#wakeLock = (await navigator.wakeLock?.request("screen").catch(() => null)) ?? null;
    }
  }
}
