// The page's one dialog: a question before an order is given back or fails.
import { el } from "../elements.js";
import { texts } from "./texts.js";

const NOTE_CHARS = 500;
const dialog = document.getElementById("question");

/** Ask whether to give the order back. Resolves to whether to do it. */
export function askDecline() {
  return ask(texts.declineTitle, []).then((form) => form !== null);
}

/** Ask why an order fails. Resolves to { reason, note }, or null. */
export async function askReason(reasons) {
  const choices = reasons.map((reason, n) =>
    el(
      "label",
      { class: "choice" },
      el("input", { type: "radio", name: "reason", value: reason, required: "", checked: n === 0 ? "" : null }),
      texts.reasons[reason] ?? reason,
    ),
  );
  const note = el("label", {}, texts.note, el("textarea", { name: "note", rows: 2, maxlength: NOTE_CHARS }));
  const form = await ask(texts.failTitle, [...choices, note]);
  if (form === null) return null;
  return { reason: form.get("reason") ?? "other", note: form.get("note").trim() || null };
}

function ask(title, content) {
  const form = el(
    "form",
    { method: "dialog" },
    el("h2", { id: "question-title" }, title),
    ...content,
    el(
      "div",
      { class: "pair" },
      el("button", { value: "", formnovalidate: "" }, texts.cancel),
      el("button", { value: "yes", class: "danger" }, texts.confirm),
    ),
  );
  dialog.replaceChildren(form);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => resolve(dialog.returnValue === "yes" ? new FormData(form) : null),
      { once: true },
    );
  });
}
