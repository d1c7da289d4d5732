// The fleet page's texts: English in the sources, Italian by the browser's language.
import { duration } from "../labels.js";
import { languageOf } from "../language.js";

export const language = languageOf({ en: true, it: true });
const translated = language === "it" ? (await import("./texts-it.js")).default : {};

/** A text in the page's language; each `{}` is the next value. */
export function say(text, ...values) {
  const parts = (translated[text] ?? text).split("{}");
  return parts.map((part, n) => (n ? `${values[n - 1]}${part}` : part)).join("");
}

export const since = (seconds) => (seconds < 2 ? say("now") : say("{} ago", duration(seconds)));

/** Translate what the page's HTML has. */
export function translatePage() {
  document.documentElement.lang = language;
  if (language === "en") return;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.data.trim();
    if (translated[text]) node.data = node.data.replace(text, translated[text]);
  }
  for (const name of ["aria-label", "placeholder", "title"]) {
    for (const element of document.querySelectorAll(`[${name}]`)) {
      const text = element.getAttribute(name);
      if (translated[text]) element.setAttribute(name, translated[text]);
    }
  }
}
