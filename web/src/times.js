// Durations, times of day and dates, as the page's language writes them.
import { locale } from "./texts.js";

/** A duration in seconds, rounded: `45 s`, `12 min`, `3 h`. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** A range of durations in minutes: `12 min`, `10–14 min`, `< 1 min`. */
export function minutes(low_s, high_s = low_s) {
  if (high_s < 60) return "< 1 min";
  const [low, high] = [low_s, high_s].map((one) => Math.max(1, Math.round(one / 60)));
  return low < high ? `${low}–${high} min` : `${high} min`;
}

// One each: to create a format takes longer than all else on a page.
const TIME = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
const TIME_WITH_SECONDS = new Intl.DateTimeFormat(locale, { timeStyle: "medium", hour12: false });
const DATE_AND_TIME = new Intl.DateTimeFormat(locale, { dateStyle: "short", timeStyle: "medium" });

/** A time of day: `14:05`. */
export function clock(instant) {
  return TIME.format(new Date(instant));
}

/** A time of day with seconds: `14:05:09`. */
export function clockWithSeconds(instant) {
  return TIME_WITH_SECONDS.format(new Date(instant));
}

/** A date and a time of day: `11/29/26, 2:05:09 PM`. */
export function dateAndTime(instant) {
  return DATE_AND_TIME.format(new Date(instant));
}
