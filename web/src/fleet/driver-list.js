// Drivers as a list, for a browser that cannot draw the map.
import { el, fill } from "../elements.js";
import { PRESENCES, SHOWN_STATES } from "../labels.js";
import { symbolElement } from "./symbols.js";
import { say } from "./texts.js";

const SHOWN = 200;

/** Draw the drivers that the filters show; `select(driverId)` gets a chosen one. */
export function drawDriverList(container, index, select) {
  const { columns } = index;
  const shown = [];
  for (const row of index.rows.values()) {
    const presence = index.presenceOf(row);
    if (index.isShown(row, presence)) shown.push([row[columns.driver_id], index.stateOf(row), presence]);
  }
  shown.sort(([a], [b]) => (a < b ? -1 : 1));
  const rest = shown.length - SHOWN;
  fill(container, shown, () => [
    ...shown.slice(0, SHOWN).map(([id, state, presence]) =>
      el(
        "li",
        {},
        el(
          "button",
          { type: "button", onclick: () => select(id) },
          symbolElement(SHOWN_STATES[state] ?? SHOWN_STATES.off_duty),
          el("span", { class: "mono" }, id),
          el("span", { class: "muted small" }, `${say(SHOWN_STATES[state]?.label ?? state)} · ${say(PRESENCES[presence].label)}`),
        ),
      ),
    ),
    ...(rest > 0 ? [el("li", { class: "muted small" }, say("{} more: search for them", rest))] : []),
  ]);
}
