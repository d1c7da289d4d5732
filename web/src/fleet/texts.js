// The fleet page's texts.
import { loadItalian, say } from "../texts.js";
import { duration } from "../times.js";

export { decimal, say, translatePage } from "../texts.js";
await loadItalian(() => import("./texts-it.js"));

export const since = (seconds) => (seconds < 2 ? say("now") : say("{} ago", duration(seconds)));
