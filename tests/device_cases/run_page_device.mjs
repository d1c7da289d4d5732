// Runs cases.json with the device of the courier's page (web/src/drive/device.js), over a journal in
// memory. Prints what was observed at each claim, as JSON. tests/unit/device/test_device_cases.py
// compares it.
import { readFileSync } from "node:fs";
import { Device } from "../../web/src/drive/device.js";
import { Sampler, POLICY } from "../../web/src/drive/sampler.js";
import { MemoryJournal } from "./memory_journal.mjs";

class World {
  constructor({ max_fixes: maxFixes, reject = [] }) {
    Object.assign(this, { maxFixes, reject, network: "down", nowS: 0, written: 0, sent: [], backup: null });
    this.journal = new MemoryJournal();
    this.stored = new Map(); // of the platform: "boot seq" -> the fix's number
  }

  async start() {
    this.device = new Device({
      journal: this.journal,
      send: async (fixes) => this.receive(fixes),
      nowS: () => this.nowS,
      ...(this.maxFixes && { maxFixes: this.maxFixes }),
    });
    await this.device.open();
  }

  receive(fixes) {
    if (this.network === "down") throw new TypeError("no network");
    this.sent.push(fixes.map(({ seq }) => seq));
    const outcomes = fixes.map(({ boot, seq, altitude_m: number }) => {
      if (this.reject.includes(number)) return "rejected";
      const before = this.stored.get(`${boot} ${seq}`);
      if (before !== undefined) return before === number ? "duplicate" : "conflict";
      this.stored.set(`${boot} ${seq}`, number);
      return "committed";
    });
    if (this.network === "answers_lost") throw new TypeError("no answer");
    return { status: 200, retryAfterS: 0, outcomes };
  }

  async step(step) {
    const [[name, value]] = Object.entries(step);
    if (name === "fix") {
      for (let n = 0; n < value; n += 1) {
        this.written += 1;
        await this.device.write({ fix_at: this.written * 1000, altitude_m: this.written });
        await this.device.pump();
      }
    } else if (name === "network") {
      this.network = value;
      if (value === "up") await this.device.retryNow();
    } else if (name === "restart") await this.start();
    else if (name === "backup") this.backup = this.journal.copy();
    else if (name === "restore") {
      this.journal = this.backup;
      await this.start();
    }
  }

  observe() {
    const { device, journal, stored, sent } = this;
    this.sent = [];
    const boots = new Set(Array.from(stored.keys(), (key) => key.split(" ")[0]));
    return {
      sent,
      pending: journal.seqs(),
      count: device.pending,
      given_up: device.givenUp,
      has: [...stored.values()].sort((a, b) => a - b),
      boots: boots.size,
    };
  }
}

const { cases, sampling } = JSON.parse(readFileSync(new URL("cases.json", import.meta.url), "utf-8"));
const observed = {};
for (const one of cases) {
  const world = new World(one);
  await world.start();
  observed[one.name] = [];
  for (const step of [...one.steps, { claims: one.claims }]) {
    if (step.claims) observed[one.name].push(world.observe());
    else await world.step(step);
  }
}
for (const { name, policy, at_s: instants } of sampling) {
  const sampler = new Sampler({ ...POLICY, ...policy });
  const sent = instants.flatMap((at) => sampler.observe({ fix_at: at * 1000 }));
  observed[`sampling: ${name}`] = sent.map((fix) => fix.fix_at / 1000);
}
process.stdout.write(JSON.stringify(observed));
