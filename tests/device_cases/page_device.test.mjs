// What the courier's page does with an answer of HTTP, which the reference device has not.
import assert from "node:assert/strict";
import test from "node:test";
import { Device, MAX_BATCH_BYTES, RETRY_MAX_S, RETRY_MIN_S } from "../../web/src/drive/device.js";
import { mapsLink } from "../../web/src/drive/maps-link.js";
import { MemoryJournal } from "./memory_journal.mjs";

async function makeWorld(answers, { count = 1, random = () => 1 } = {}) {
  const world = { nowS: 0, sent: [], journal: new MemoryJournal() };
  const answer = (fixes) => {
    const next = answers.shift() ?? 200;
    if (next === "none") throw new TypeError("no network");
    if (typeof next === "number") return { status: next, retryAfterS: 0, outcomes: fixes.map(() => "committed") };
    return { retryAfterS: 0, ...next };
  };
  const send = async (fixes) => {
    world.sent.push(fixes.map(({ seq }) => seq));
    return answer(fixes);
  };
  world.device = new Device({ journal: world.journal, send, nowS: () => world.nowS, random });
  await world.device.open();
  for (let n = 0; n < count; n += 1) await world.device.write({ fix_at: n });
  return world;
}

test("Retry-After is kept, also when the network comes back meanwhile", async () => {
  const { device, sent, ...world } = await makeWorld([{ status: 429, retryAfterS: 90 }]);
  await device.pump();
  assert.equal(device.retryAtS, 90);
  await device.retryNow();
  assert.deepEqual([sent, device.pending], [[[1]], 1]);
  assert.equal(world.nowS, 0);
});

test("without an answer the wait doubles up to a limit, and the network's return ends it", async () => {
  const world = await makeWorld(Array(8).fill("none"));
  const waits = [];
  for (let n = 0; n < 7; n += 1) {
    await world.device.pump();
    waits.push(world.device.retryAtS - world.nowS);
    world.nowS = world.device.retryAtS;
  }
  assert.deepEqual(waits, [2, 4, 8, 16, RETRY_MAX_S, RETRY_MAX_S, RETRY_MAX_S]);
  await world.device.pump();
  await world.device.retryNow();
  assert.deepEqual([world.device.pending, world.sent.length], [0, 9]);
});

test("the least wait is not zero", async () => {
  const world = await makeWorld(["none"], { random: () => 0 });
  await world.device.pump();
  assert.equal(world.device.retryAtS, RETRY_MIN_S);
});

for (const status of [400, 401, 403, 404, 408, 500, 502, 503]) {
  test(`${status} keeps the fix, and it goes out again`, async () => {
    const world = await makeWorld([status]);
    await world.device.pump();
    assert.equal(world.device.pending, 1);
    assert.equal(world.device.isUnauthorized, status === 401 || status === 403);
    await world.device.retryNow();
    assert.deepEqual([world.device.pending, world.sent], [0, [[1], [1]]]);
  });
}

for (const outcomes of [undefined, [], ["committed"]]) {
  test(`200 with ${outcomes?.length ?? "no"} outcomes for 2 fixes is no answer of ours: both are kept`, async () => {
    const world = await makeWorld([{ status: 200, outcomes }], { count: 2 });
    await world.device.pump();
    assert.equal(world.device.pending, 2);
  });
}

test("every outcome settles its fix; rejected ones are counted", async () => {
  const outcomes = ["committed", "duplicate", "quarantined", "dropped", "rejected"];
  const world = await makeWorld([{ status: 200, outcomes }], { count: 5 });
  await world.device.pump();
  assert.deepEqual([world.device.pending, world.device.rejected], [0, 1]);
});

test("a request refused as a whole is halved until one fix is left, which is rejected", async () => {
  const world = await makeWorld([422, 422, 422], { count: 4 });
  await world.device.pump();
  assert.deepEqual(world.sent, [[1, 2, 3, 4], [1, 2], [1], [2], [3, 4]]);
  assert.deepEqual([world.device.pending, world.device.rejected], [0, 1]);
});

test("full storage: the fix is not kept, the page can say so, and its seq is used by the next", async () => {
  const { device, journal } = await makeWorld([], { count: 1 });
  journal.hasRoom = false;
  assert.equal(await device.write({ fix_at: 2 }), false);
  assert.deepEqual([device.isFull, device.pending], [true, 1]);
  journal.hasRoom = true;
  assert.equal(await device.write({ fix_at: 3 }), true);
  assert.deepEqual([device.isFull, journal.seqs()], [false, [1, 2]]);
});

test("a fix that is written during a request waits for its own", async () => {
  const { device, journal, sent } = await makeWorld([], { count: 1 });
  await Promise.all([device.pump(), device.write({ fix_at: 2 }), device.write({ fix_at: 3 })]);
  await device.pump();
  assert.deepEqual([sent.flat(), journal.seqs(), device.pending], [[1, 2, 3], [], 0]);
});

test("a request has at most 60,000 bytes", async () => {
  const { device, sent } = await makeWorld([], { count: 0 });
  for (let n = 0; n < 200; n += 1) await device.write({ fix_at: n, note: "x".repeat(500) });
  await device.pump();
  assert.ok(sent.length > 1);
  assert.ok(sent.every((seqs) => seqs.length * 500 < MAX_BATCH_BYTES));
  assert.deepEqual(sent.flat(), Array.from({ length: 200 }, (_, n) => n + 1));
});

test("the maps link suits the phone", () => {
  const place = { lon_deg: 11.26, lat_deg: 43.78 };
  assert.equal(mapsLink(place, "Mozilla/5.0 (Linux; Android 15)"), "geo:43.78,11.26?q=43.78,11.26");
  assert.equal(mapsLink(place, "Mozilla/5.0 (iPhone)"), "https://maps.apple.com/?daddr=43.78,11.26");
  assert.match(mapsLink(place, "Mozilla/5.0 (X11; Linux)"), /^https:\/\/www\.openstreetmap\.org\/directions/);
});
