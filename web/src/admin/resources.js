// What the page administers: of each kind its address, its table and its form.
import { el } from "../elements.js";
import { hoursText } from "./hours.js";
import { decimal, say } from "./texts.js";
import { eventsOf, stateOf, webhookActions } from "./webhooks.js";

const VEHICLES = {
  bicycle: say("Bicycle"), cargo_bike: say("Cargo bike"), moped: say("Moped"), car: say("Car"), van: say("Van"), foot: say("On foot"),
};
const DEGREES = { type: "number", step: "any", isRequired: true };
const number = (name, label, attributes = {}) => ({ name, label, type: "number", step: "any", min: 0, ...attributes });
const degrees = (value) => decimal(value.toFixed(5));
const clock = (seconds) => (seconds === null ? "" : `${Math.round(seconds / 60)} min`);

/** A kind: `columns` are [title, text of a row, is a number], `fields` those of the form. */
export const RESOURCES = [
  {
    path: "/drivers", list: "drivers", key: "driver_id", title: say("Drivers"),
    addText: say("Add a driver"), noneText: say("There is no driver yet."),
    about: say("A new driver gets a password for MQTT and a token, which are shown once. A retired one can no longer log in."),
    columns: [
      [say("Name"), (row) => row.name], [say("Id"), (row) => row.driver_id],
      [say("Vehicle"), (row) => VEHICLES[row.vehicle] ?? ""], [say("Phone"), (row) => row.phone ?? ""],
    ],
    fields: [
      { name: "id", label: say("Id (letters, digits, _ and -; cannot change)"), isRequired: true, isNewOnly: true, maxlength: 64, pattern: "[A-Za-z0-9_\\-]{1,64}" },
      { name: "name", label: say("First name, as customers read it"), maxlength: 100, isKeptIfEmpty: true },
      { name: "vehicle", label: say("Vehicle"), options: VEHICLES },
      { name: "phone", label: say("Phone"), type: "tel", maxlength: 32 },
    ],
    actionsOf: driverActions,
  },
  {
    path: "/restaurants", list: "restaurants", key: "restaurant_id", title: say("Restaurants"),
    addText: say("Add a restaurant"), noneText: say("There is no restaurant yet."),
    about: say("Places where orders are picked up. A retired one takes no new orders."),
    place: "point",
    columns: [
      [say("Name"), (row) => row.name], [say("Address"), (row) => row.address ?? ""],
      [say("Phone"), (row) => row.phone ?? ""], [say("Open"), (row) => hoursText(row.opening_hours)], [say("Area"), (row) => row.city ?? ""],
      [say("Preparation"), (row) => clock(row.preparation_s), true], [say("Id"), (row) => row.restaurant_id, true],
    ],
    fields: [
      { name: "name", label: say("Name"), isRequired: true, maxlength: 100 },
      { name: "address", label: say("Address"), maxlength: 300 },
      { name: "phone", label: say("Phone"), type: "tel", maxlength: 32 },
      { name: "lat_deg", label: say("Latitude (degrees)"), ...DEGREES, min: -90, max: 90 },
      { name: "lon_deg", label: say("Longitude (degrees)"), ...DEGREES, min: -180, max: 180 },
      number("preparation_s", say("Preparation (minutes)"), { scale: 60, max: 1440 }),
      { name: "opening_hours", label: say("Opening hours (local time)"), type: "hours" },
    ],
  },
  {
    path: "/service-areas", list: "service_areas", key: "name", title: say("Areas"),
    addText: say("Add a service area"), noneText: say("There is no service area yet."),
    about: say("Boxes in which positions are expected; a box across ±180° has its west above its east. A position outside all of them, and inside one with latitude and longitude swapped, is quarantined."),
    place: "box",
    columns: [
      [say("Name"), (row) => row.name],
      [say("West"), (row) => degrees(row.west), true], [say("South"), (row) => degrees(row.south), true],
      [say("East"), (row) => degrees(row.east), true], [say("North"), (row) => degrees(row.north), true],
      [say("Time zone"), (row) => row.time_zone],
    ],
    fields: [
      { name: "name", label: say("Name (letters, digits, _ and -; cannot change)"), isRequired: true, isNewOnly: true, maxlength: 64, pattern: "[A-Za-z0-9_\\-]{1,64}" },
      { name: "west", label: say("West (degrees)"), ...DEGREES, min: -180, max: 180 },
      { name: "south", label: say("South (degrees)"), ...DEGREES, min: -90, max: 90 },
      { name: "east", label: say("East (degrees)"), ...DEGREES, min: -180, max: 180 },
      { name: "north", label: say("North (degrees)"), ...DEGREES, min: -90, max: 90 },
      { name: "time_zone", label: say("Time zone, such as Europe/Rome"), maxlength: 64, isKeptIfEmpty: true, list: "zones" },
    ],
  },
  {
    path: "/policies", list: "policies", key: "policy_id", title: say("Policies"),
    addText: say("Add a policy"), noneText: say("There is no policy yet."), isReplaced: true,
    about: say("Radii and times by which positions prove a state. Orders keep the policy that they were created with; the default is that of new orders that name none."),
    columns: [
      [say("Name"), (row) => (row.is_default ? say("{} (default)", row.name) : row.name)],
      [say("Door"), (row) => `${decimal(row.enter_radius_m)} m`, true],
      [say("Dwell"), (row) => `${decimal(row.dwell_min_s)}–${decimal(row.dwell_max_s)} s`, true],
      [say("Leave"), (row) => `${decimal(row.leave_radius_m)} m`, true],
      [say("Arriving"), (row) => `${decimal(row.arriving_radius_m)} m`, true],
      [say("Id"), (row) => row.policy_id, true],
    ],
    fields: [
      { name: "name", label: say("Name"), isRequired: true, maxlength: 100 },
      number("enter_radius_m", say("Door: radius (m)")), number("dwell_min_s", say("Dwell: least (s)")),
      number("dwell_max_s", say("Dwell: most (s)")), number("dwell_spread_m", say("Dwell: spread (m)")),
      number("dwell_max_mps", say("Dwell: top speed (m/s)")), number("leave_radius_m", say("Leave: radius (m)")),
      number("leave_min_s", say("Leave: least (s)")), number("leave_max_s", say("Leave: most (s)")),
      number("arriving_radius_m", say("Arriving: radius (m)")), number("arriving_min_s", say("Arriving: least (s)")),
      number("worst_accuracy_m", say("Worst accuracy (m)")), number("report_every_s", say("Report every (s)")),
      number("pace", say("Pace (1 but in a demo)")),
    ],
    actionsOf: policyActions,
  },
  {
    path: "/webhooks", list: "webhooks", key: "webhook_id", name: "url", title: say("Webhooks"),
    addText: say("Add a webhook"), noneText: say("There is no webhook yet."), isPlain: true,
    about: say("Addresses of other systems that are sent events of orders, signed. One that fails for a day is switched off."),
    columns: [
      [say("Address"), (row) => row.url], [say("Description"), (row) => row.description],
      [say("Events"), eventsOf], [say("State"), stateOf], [say("Pending"), (row) => row.pending, true],
    ],
    fields: [
      { name: "url", label: say("Address (https)"), type: "url", isRequired: true, maxlength: 2000 },
      { name: "description", label: say("Description"), maxlength: 200 },
      { name: "events", label: say("Events"), type: "events" },
    ],
    actionsOf: (row, page) => webhookActions(row, page),
  },
];

export const keyOf = (resource, row) => row[resource.key];
export const nameOf = (resource, row) => String(row[resource.name ?? "name"] ?? keyOf(resource, row));
export const addressOf = (resource, row) => `${resource.path}/${encodeURIComponent(keyOf(resource, row))}`;

function driverActions(row, { invite }) {
  return [el("button", { type: "button", "aria-label": say("Invite a phone for {}", row.name), onclick: () => invite(row) }, say("Invite"))];
}

function policyActions(row, { run }) {
  if (row.is_default || row.retired_at) return [];
  const label = say("Make {} the default", row.name);
  return [el("button", { type: "button", "aria-label": label, onclick: () => run("default", say("{} is the default now.", row.name)) }, say("Make default"))];
}
