// What the page administers: of each kind its address, its table and its form.
import { el } from "../elements.js";
import { eventsOf, stateOf, webhookActions } from "./webhooks.js";

const VEHICLES = {
  bicycle: "Bicycle", cargo_bike: "Cargo bike", moped: "Moped", car: "Car", van: "Van", foot: "On foot",
};
const DEGREES = { type: "number", step: "any", isRequired: true };
const number = (name, label, attributes = {}) => ({ name, label, type: "number", step: "any", min: 0, ...attributes });
const degrees = (value) => value.toFixed(5);
const clock = (seconds) => (seconds === null ? "" : `${Math.round(seconds / 60)} min`);
const hours = (spans) =>
  (spans ?? []).map(({ days, from, to }) => `${days.join(", ")} ${from}–${to}`).join("; ");

/** A kind: `columns` are [title, text of a row, is a number], `fields` those of the form. */
export const RESOURCES = [
  {
    path: "/drivers", list: "drivers", key: "driver_id", title: "Drivers", noun: "driver",
    about: "A new driver gets a password for MQTT and a token, which are shown once. A retired one can no longer log in.",
    columns: [
      ["Name", (row) => row.name], ["Id", (row) => row.driver_id],
      ["Vehicle", (row) => VEHICLES[row.vehicle] ?? ""], ["Phone", (row) => row.phone ?? ""],
    ],
    fields: [
      { name: "id", label: "Id (letters, digits, _ and -; cannot change)", isRequired: true, isNewOnly: true, maxlength: 64, pattern: "[A-Za-z0-9_\\-]{1,64}" },
      { name: "name", label: "First name, as customers read it", maxlength: 100, isKeptIfEmpty: true },
      { name: "vehicle", label: "Vehicle", options: VEHICLES },
      { name: "phone", label: "Phone", type: "tel", maxlength: 32 },
    ],
    actionsOf: driverActions,
  },
  {
    path: "/restaurants", list: "restaurants", key: "restaurant_id", title: "Restaurants", noun: "restaurant",
    about: "Places where orders are picked up. A retired one takes no new orders.",
    place: "point",
    columns: [
      ["Name", (row) => row.name], ["Address", (row) => row.address ?? ""],
      ["Phone", (row) => row.phone ?? ""], ["Open", (row) => hours(row.opening_hours)], ["Area", (row) => row.city ?? ""],
      ["Preparation", (row) => clock(row.preparation_s), true], ["Id", (row) => row.restaurant_id, true],
    ],
    fields: [
      { name: "name", label: "Name", isRequired: true, maxlength: 100 },
      { name: "address", label: "Address", maxlength: 300 },
      { name: "phone", label: "Phone", type: "tel", maxlength: 32 },
      { name: "lat_deg", label: "Latitude (degrees)", ...DEGREES, min: -90, max: 90 },
      { name: "lon_deg", label: "Longitude (degrees)", ...DEGREES, min: -180, max: 180 },
      number("preparation_s", "Preparation (minutes)", { scale: 60, max: 1440 }),
      { name: "opening_hours", label: "Opening hours (local time)", type: "hours" },
    ],
  },
  {
    path: "/service-areas", list: "service_areas", key: "name", title: "Areas", noun: "service area",
    about: "Boxes in which positions are expected; a box across ±180° has its west above its east. A position outside all of them, and inside one with latitude and longitude swapped, is quarantined.",
    place: "box",
    columns: [
      ["Name", (row) => row.name],
      ...["west", "south", "east", "north"].map((side) => [side[0].toUpperCase() + side.slice(1), (row) => degrees(row[side]), true]),
      ["Time zone", (row) => row.time_zone],
    ],
    fields: [
      { name: "name", label: "Name (letters, digits, _ and -; cannot change)", isRequired: true, isNewOnly: true, maxlength: 64, pattern: "[A-Za-z0-9_\\-]{1,64}" },
      { name: "west", label: "West (degrees)", ...DEGREES, min: -180, max: 180 },
      { name: "south", label: "South (degrees)", ...DEGREES, min: -90, max: 90 },
      { name: "east", label: "East (degrees)", ...DEGREES, min: -180, max: 180 },
      { name: "north", label: "North (degrees)", ...DEGREES, min: -90, max: 90 },
      { name: "time_zone", label: "Time zone, such as Europe/Rome", maxlength: 64, isKeptIfEmpty: true, list: "zones" },
    ],
  },
  {
    path: "/policies", list: "policies", key: "policy_id", title: "Policies", noun: "policy", isReplaced: true,
    about: "Radii and times by which positions prove a state. Orders keep the policy that they were created with; the default is that of new orders that name none.",
    columns: [
      ["Name", (row) => (row.is_default ? `${row.name} (default)` : row.name)],
      ["Door", (row) => `${row.enter_radius_m} m`, true],
      ["Dwell", (row) => `${row.dwell_min_s}–${row.dwell_max_s} s`, true],
      ["Leave", (row) => `${row.leave_radius_m} m`, true],
      ["Arriving", (row) => `${row.arriving_radius_m} m`, true],
      ["Id", (row) => row.policy_id, true],
    ],
    fields: [
      { name: "name", label: "Name", isRequired: true, maxlength: 100 },
      number("enter_radius_m", "Door: radius (m)"), number("dwell_min_s", "Dwell: least (s)"),
      number("dwell_max_s", "Dwell: most (s)"), number("dwell_spread_m", "Dwell: spread (m)"),
      number("dwell_max_mps", "Dwell: top speed (m/s)"), number("leave_radius_m", "Leave: radius (m)"),
      number("leave_min_s", "Leave: least (s)"), number("leave_max_s", "Leave: most (s)"),
      number("arriving_radius_m", "Arriving: radius (m)"), number("arriving_min_s", "Arriving: least (s)"),
      number("worst_accuracy_m", "Worst accuracy (m)"), number("report_every_s", "Report every (s)"),
      number("pace", "Pace (1 but in a demo)"),
    ],
    actionsOf: policyActions,
  },
  {
    path: "/webhooks", list: "webhooks", key: "webhook_id", name: "url", title: "Webhooks", noun: "webhook", isPlain: true,
    about: "Addresses of other systems that are sent events of orders, signed. One that fails for a day is switched off.",
    columns: [
      ["Address", (row) => row.url], ["Description", (row) => row.description],
      ["Events", eventsOf], ["State", stateOf], ["Pending", (row) => row.pending, true],
    ],
    fields: [
      { name: "url", label: "Address (https)", type: "url", isRequired: true, maxlength: 2000 },
      { name: "description", label: "Description", maxlength: 200 },
      { name: "events", label: "Events", type: "events" },
    ],
    actionsOf: (row, page) => webhookActions(row, page),
  },
];

export const keyOf = (resource, row) => row[resource.key];
export const nameOf = (resource, row) => String(row[resource.name ?? "name"] ?? keyOf(resource, row));
export const addressOf = (resource, row) => `${resource.path}/${encodeURIComponent(keyOf(resource, row))}`;

function driverActions(row, { invite }) {
  return [el("button", { type: "button", "aria-label": `Invite a phone for ${row.name}`, onclick: () => invite(row) }, "Invite")];
}

function policyActions(row, { run }) {
  if (row.is_default || row.retired_at) return [];
  const label = `Make ${row.name} the default`;
  return [el("button", { type: "button", "aria-label": label, onclick: () => run("default", `${row.name} is the default now.`) }, "Make default")];
}
