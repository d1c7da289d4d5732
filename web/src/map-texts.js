// What MapLibre itself says, in the page's language; its own texts are English.
const TEXTS = {
  it: ["Mappa", "Segnaposto", "Ingrandisci", "Riduci", "Mostra o nascondi le fonti"],
  fr: ["Carte", "Repère", "Zoom avant", "Zoom arrière", "Afficher ou masquer les sources"],
  de: ["Karte", "Markierung", "Vergrößern", "Verkleinern", "Quellen ein- oder ausblenden"],
};
const NAMES = [
  "Map.Title", "Marker.Title", "NavigationControl.ZoomIn", "NavigationControl.ZoomOut",
  "AttributionControl.ToggleAttribution",
];

/** MapLibre's option `locale`. */
export function mapTexts(language) {
  return Object.fromEntries((TEXTS[language] ?? []).map((text, n) => [NAMES[n], text]));
}
