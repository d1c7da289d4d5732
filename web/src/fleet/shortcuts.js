// Single-key shortcuts, listed under "?", which can be switched off there.
import { el } from "../elements.js";
import { say } from "./texts.js";

const $ = (id) => document.getElementById(id);
const STORED = "doorstep-shortcuts";
const TYPED_IN = "input:not([type=radio]):not([type=checkbox]):not([type=range]), textarea, select, [contenteditable]";

/** `actions` maps a key to [what it does, function]; a function gets the key. */
export function installShortcuts(actions) {
  const isOn = () => localStorage.getItem(STORED) !== "off";
  const toggle = el("input", { type: "checkbox" });
  toggle.checked = isOn();
  toggle.addEventListener("change", () => localStorage.setItem(STORED, toggle.checked ? "on" : "off"));
  $("help").replaceChildren(
    el("h2", { id: "help-title" }, say("Keyboard")),
    el("dl", {}, ...Object.entries(actions).flatMap(([key, [label]]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, say(label))])),
    el("label", {}, toggle, say("Single-key shortcuts")),
    el("form", { method: "dialog" }, el("button", {}, say("Close"))),
  );
  const showHelp = () => $("help").showModal();
  $("help-button").addEventListener("click", showHelp);
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || $("help").open) return;
    const isTyping = event.target.matches?.(TYPED_IN);
    if (event.key === "Escape") return actions.Esc[1](event.key);
    if (isTyping || !isOn()) return;
    if (event.key === "?") return showHelp();
    const name = /^[1-8]$/.test(event.key) ? "1 – 8" : event.key.toLowerCase();
    const action = actions[name];
    if (!action) return;
    event.preventDefault();
    action[1](event.key);
  });
}
