// The page's one dialog: a question before an order is given back, fails or is handed over.
import { el } from "../elements.js";
import { texts } from "./texts.js";

const NOTE_CHARS = 500;
const dialog = document.getElementById("question");

/** Ask whether to give the order back. Resolves to whether to do it. */
export function askDecline() {
  return ask(texts.declineTitle, []).then((form) => form !== null);
}

/** Ask why an order fails, and what follows. Resolves to { reason, note, next_step }, or null. */
export async function askReason(reasons, nextSteps = []) {
  const steps = nextSteps.length > 0 ? ["none", ...nextSteps] : [];
  const next = steps.length > 0 && el("fieldset", {}, el("legend", {}, texts.nextStep), ...choices("next_step", steps, texts.nextSteps));
  const form = await ask(texts.failTitle, [...choices("reason", reasons, texts.reasons), next, noteField()]);
  if (form === null) return null;
  const step = form.get("next_step");
  return {
    reason: form.get("reason") ?? "other",
    note: form.get("note").trim() || null,
    ...(step && step !== "none" && { next_step: step }),
  };
}

/** Ask how an order is handed over. Resolves to { body, photo }, or null; `photo` is a file or null. */
export async function askHandOver({ hasPin, isOffline }) {
  const pin = hasPin && [
    el(
      "label",
      {},
      texts.pin,
      el("input", { name: "pin", class: "pin", inputmode: "numeric", pattern: "[0-9]{4,8}", maxlength: 8, autocomplete: "off", required: "" }),
    ),
    isOffline && el("p", { class: "small" }, texts.pinOffline),
  ];
  const photo = el("label", {}, texts.photo, el("input", { type: "file", name: "photo", accept: "image/*", capture: "environment" }));
  const title = hasPin ? texts.pinTitle : texts.handOverTitle;
  const form = await ask(title, [...(pin || []), photo, noteField()], "main");
  if (form === null) return null;
  const note = form.get("note").trim();
  const file = form.get("photo");
  return {
    body: { ...(hasPin && { pin: form.get("pin") }), ...(note && { note }) },
    photo: file?.size > 0 ? file : null,
  };
}

function choices(name, values, labels) {
  return values.map((value, n) =>
    el(
      "label",
      { class: "choice" },
      el("input", { type: "radio", name, value, required: "", checked: n === 0 ? "" : null }),
      labels[value] ?? value,
    ),
  );
}

function noteField() {
  return el("label", {}, texts.note, el("textarea", { name: "note", rows: 2, maxlength: NOTE_CHARS }));
}

function ask(title, content, kind = "danger") {
  const form = el(
    "form",
    { method: "dialog" },
    el("h2", { id: "question-title" }, title),
    ...content.filter(Boolean),
    el(
      "div",
      { class: "pair" },
      el("button", { value: "", formnovalidate: "" }, texts.cancel),
      el("button", { value: "yes", class: kind }, texts.confirm),
    ),
  );
  dialog.replaceChildren(form);
  dialog.showModal();
  return new Promise((resolve) => {
    form.onsubmit = ({ submitter }) => resolve(submitter?.value === "yes" ? new FormData(form) : null);
    // Escape. The event comes with a later frame, which the next question may precede.
    dialog.onclose = () => dialog.open || resolve(null);
  });
}
