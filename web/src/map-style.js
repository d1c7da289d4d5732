// Loads the map's style, for pages that do not have it from the start.
import style from "address:map.css";
import { el } from "./elements.js";

/** Resolves when the style has arrived. */
export async function loadMapStyle() {
  const sheet = el("link", { rel: "stylesheet", href: style });
  const styled = new Promise((resolve, reject) => {
    sheet.addEventListener("load", resolve);
    sheet.addEventListener("error", () => reject(new Error("no stylesheet")));
  });
  document.head.append(sheet);
  await styled;
}
