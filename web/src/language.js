/** The first of the phone's languages that `texts` has, else English. */
export function languageOf(texts) {
  return navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase()).find((code) => code in texts) ?? "en";
}
