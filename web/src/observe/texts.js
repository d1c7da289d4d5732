// The texts of the page of dashboards.
import { loadItalian } from "../texts.js";

export * from "../texts.js";
await loadItalian(() => import("./texts-it.js"));
