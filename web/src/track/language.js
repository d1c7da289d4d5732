// The customer's language: the texts, and times as they are written there. One place for all texts.
const LOADERS = {
  en: () => import("./texts/en.js"),
  it: () => import("./texts/it.js"),
  fr: () => import("./texts/fr.js"),
  de: () => import("./texts/de.js"),
};

const codeOf = (tag) => tag.slice(0, 2).toLowerCase();
/** The first of the phone's languages that there are texts in, with its region. */
export const LOCALE = navigator.languages.find((tag) => codeOf(tag) in LOADERS) ?? "en";
export const LANGUAGE = codeOf(LOCALE);

let texts = {};
let zone; // of the city; undefined: the phone's

/** Load the texts, and put them into the page's elements with `data-text`. */
export async function loadTexts() {
  texts = (await LOADERS[LANGUAGE]()).default;
  document.documentElement.lang = LANGUAGE;
  for (const one of document.querySelectorAll("[data-text]")) one.textContent = text(one.dataset.text);
}

/** A text with its {places} filled; `name` may lead through members: `states.created`. */
export function text(name, places = {}) {
  const found = name.split(".").reduce((members, one) => members?.[one], texts) ?? "";
  return found.replace(/\{(\w+)\}/g, (_, place) => places[place]);
}

const formats = new Map(); // to create one takes longer than all else on the page
function format(options) {
  const key = JSON.stringify([options, zone]);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(LOCALE, { ...options, timeZone: zone }));
  return formats.get(key);
}

const MINUTES = { hour: "2-digit", minute: "2-digit" };

/** A time of day in the city: `20:14`, with the zone if the phone's clock shows another time. */
export function clock(instant, { withZone = true, withSeconds = false } = {}) {
  const options = withSeconds ? { ...MINUTES, second: "2-digit" } : MINUTES;
  return format(zone && withZone ? { ...options, timeZoneName: "short" } : options).format(new Date(instant));
}

/** Show times of a zone from now on, if the phone's clock differs from it. */
export function useZone(name) {
  const full = { dateStyle: "short", timeStyle: "short" };
  const now = Date.now();
  zone = undefined;
  const there = new Intl.DateTimeFormat(LOCALE, { ...full, timeZone: name }).format(now);
  zone = there === new Intl.DateTimeFormat(LOCALE, full).format(now) ? undefined : name;
}

/** A duration in seconds, rounded: `45 s`, `12 min`, `3 h`. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

export const ago = (seconds) => (seconds < 2 ? text("now") : text("ago", { duration: duration(seconds) }));
