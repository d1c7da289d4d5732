// The texts of the administration page.
import { loadItalian } from "../texts.js";

export * from "../texts.js";
await loadItalian(() => import("./texts-it.js"));
