// The texts of the staff's pages: English in the sources, Italian by the browser's language.
import { languageOf, localeOf } from "./language.js";

export const language = languageOf({ en: true, it: true });
export const locale = language === "en" ? [] : localeOf(language); // for Intl; of the browser in English
const translated = {};

/** Load the texts that all pages share, and a page's own, if it is in Italian. */
export async function loadItalian(load) {
  if (language !== "it") return;
  for (const { default: texts } of await Promise.all([import("./texts-it.js"), load()])) Object.assign(translated, texts);
}

/** A text in the page's language; each `{}` is the next value. */
export function say(text, ...values) {
  const parts = (translated[text] ?? text).split("{}");
  return parts.map((part, n) => (n ? `${values[n - 1]}${part}` : part)).join("");
}

/** A number as the language writes it; `value` has a point before its decimals. */
export const decimal = (value) => (language === "en" ? String(value) : String(value).replace(".", ","));

/** Translate what the page's HTML has. */
export function translatePage() {
  document.documentElement.lang = language;
  if (language === "en") return;
  document.title = document.title.split(" · ").map((text) => say(text)).join(" · ");
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const written = node.data.trim();
    const text = translated[written.replace(/\s+/g, " ")];
    if (text) node.data = node.data.replace(written, () => text);
  }
  for (const name of ["aria-label", "placeholder", "title"]) {
    for (const element of document.querySelectorAll(`[${name}]`)) {
      const text = translated[element.getAttribute(name)];
      if (text) element.setAttribute(name, text);
    }
  }
}
