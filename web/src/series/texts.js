// The texts of the page of series.
import { loadItalian } from "../texts.js";

export * from "../texts.js";
await loadItalian(() => import("./texts-it.js"));
