/** The first of the phone's languages that `texts` has, else English. */
export function languageOf(texts) {
  return navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase()).find((code) => code in texts) ?? "en";
}

/** The device's tag of a language, with its region: times of day are written as there. */
export function localeOf(language) {
  return navigator.languages.find((tag) => tag.slice(0, 2).toLowerCase() === language) ?? language;
}
