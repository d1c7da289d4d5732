// Opening hours in a form: a row of days and two times for each span.
import { el } from "../elements.js";
import { say } from "./texts.js";

const DAYS = {
  mon: say("Mon"), tue: say("Tue"), wed: say("Wed"), thu: say("Thu"), fri: say("Fri"), sat: say("Sat"), sun: say("Sun"),
};

/** Spans as a short text: `mon, tue 11:30–22:00`. */
export const hoursText = (spans) =>
  (spans ?? []).map(({ days, from, to }) => `${days.map((one) => DAYS[one].toLowerCase()).join(", ")} ${from}–${to}`).join("; ");

export function hoursField(label, spans) {
  const rows = el("div");
  const add = (span, isFocused) => {
    const row = spanRow(span);
    rows.append(row);
    if (isFocused) row.querySelector("input").focus();
  };
  for (const span of spans ?? []) add(span, false);
  const button = el("button", { type: "button", onclick: () => add({ days: [], from: "11:30", to: "22:00" }, true) }, say("Add hours"));
  return el("fieldset", { "data-field": "opening_hours" }, el("legend", {}, label), rows, el("div", { class: "hours" }, button));
}

function spanRow({ days, from, to }) {
  const checks = Object.entries(DAYS).map(([day, text]) => {
    const check = el("input", { type: "checkbox", value: day });
    check.checked = days.includes(day);
    return el("label", {}, check, text);
  });
  const row = el(
    "div",
    { class: "hours", role: "group", "aria-label": say("Hours") },
    el("div", { class: "days" }, ...checks),
    el("label", {}, say("from"), timeInput("from", from)),
    el("label", {}, say("to"), timeInput("to", to)),
    el("button", { type: "button", onclick: () => row.remove() }, say("Remove")),
  );
  return row;
}

function timeInput(name, value) {
  const input = el("input", { type: "time", "data-part": name });
  input.value = value;
  return input;
}

/** The spans of a field as the API takes them; null for none. */
export function readHours(field) {
  const spans = [...field.querySelectorAll('[role="group"]')].map((row) => ({
    days: [...row.querySelectorAll("input:checked")].map(({ value }) => value),
    from: row.querySelector('[data-part="from"]').value,
    to: row.querySelector('[data-part="to"]').value,
  }));
  return spans.length ? spans : null;
}
