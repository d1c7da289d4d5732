// The form in which a row is added or changed. A change sends the changed fields only.
import { getJson } from "../api.js";
import { el } from "../elements.js";
import { loadMapStyle } from "../map-style.js";
import { complaintsOf, failureText } from "../refusals.js";
import { hoursField, readHours } from "./hours.js";
import { nameOf } from "./resources.js";
import { say } from "./texts.js";
import { eventsField, readEvents } from "./webhooks.js";

const $ = (id) => document.getElementById(id);
const POINT = ["lat_deg", "lon_deg"];
const BOX = ["west", "south", "east", "north"];

export class Editor {
  #resource;
  #row; // null for a new one
  #map = null;
  #opening = 0; // a map that arrives for an earlier form is not shown

  /** `save(resource, row, values)` sends the values, and throws what the API refuses. */
  constructor(save) {
    this.save = save;
    $("editor").querySelector("form").addEventListener("submit", (event) => this.#submit(event));
    $("cancel").addEventListener("click", () => $("editor").close());
    // The event comes with a later frame: the next form may be open by then.
    $("editor").addEventListener("close", () => $("editor").open || this.#close());
    $("draw").addEventListener("click", () => this.#setDrawing(!this.#map?.isDrawing));
    $("fields").addEventListener("input", () => this.#map?.show(this.#places()));
  }

  open(resource, row) {
    this.#close();
    this.#resource = resource;
    this.#row = row;
    $("editor-title").textContent = row ? say("Change {}", nameOf(resource, row)) : resource.addText;
    const isReplaced = resource.isReplaced && row;
    $("editor-note").textContent = isReplaced
      ? say("Saving makes a new policy with these values and retires this one. Orders keep the one that they have.")
      : "";
    $("editor-error").textContent = "";
    $("fields").replaceChildren(...this.#fields().map((field) => inputOf(field, row)));
    $("fields").classList.toggle("is-wide", resource.fields.length > 8);
    $("map-box").hidden = !resource.place;
    $("columns").classList.toggle("has-map", Boolean(resource.place));
    $("editor").showModal();
    $("fields").querySelector("input, select").focus();
    if (resource.place) this.#loadMap(resource.place);
  }

  #fields() {
    return this.#resource.fields.filter(({ isNewOnly }) => !(isNewOnly && this.#row));
  }

  #input(name) {
    return $("fields").querySelector(`[name="${name}"]`);
  }

  #places() {
    return Object.fromEntries([...POINT, ...BOX].map((name) => [name, Number.parseFloat(this.#input(name)?.value)]));
  }

  async #loadMap(place) {
    this.#opening += 1;
    const opening = this.#opening;
    $("draw").hidden = place !== "box";
    $("map-help").textContent = "";
    try {
      const [{ PointMap, BoxMap }, { cities }] = await Promise.all([import("./place-map.js"), getJson("/cities"), loadMapStyle()]);
      if (opening !== this.#opening) return;
      const fill = (values) => {
        for (const [name, value] of Object.entries(values)) this.#input(name).value = value;
      };
      this.#map =
        place === "point"
          ? new PointMap(cities, (lat, lon) => fill({ lat_deg: lat, lon_deg: lon }))
          : new BoxMap(cities, fill, () => this.#setDrawing(false));
      this.#map.show(this.#places());
      $("map-help").textContent =
        place === "point"
          ? say("Drag the pin, or click where it belongs. The fields do the same.")
          : say("Press the button, then drag over the map. The fields do the same.");
    } catch {
      if (opening !== this.#opening) return;
      $("draw").hidden = true;
      $("map-help").textContent = say("The map cannot be drawn here. The fields work without it.");
    }
  }

  #setDrawing(isDrawing) {
    this.#map?.setDrawing(isDrawing);
    $("draw").setAttribute("aria-pressed", String(isDrawing));
  }

  async #submit(event) {
    event.preventDefault();
    $("editor-error").textContent = "";
    for (const one of $("fields").querySelectorAll("[aria-invalid]")) one.removeAttribute("aria-invalid");
    const values = this.#values();
    if (!values) return;
    $("save").disabled = true;
    try {
      await this.save(this.#resource, this.#row, values);
      $("editor").close();
    } catch (error) {
      this.#refuse(error);
    }
    $("save").disabled = false;
  }

  /** The values to send; null if a field is wrong, which then has the focus. */
  #values() {
    const values = {};
    for (const field of this.#fields()) {
      const input = this.#input(field.name) ?? $("fields").querySelector("fieldset");
      if (input.validity && (!input.checkValidity() || (field.isRequired && !input.value.trim()))) {
        this.#mark(input, `${field.label}: ${input.validationMessage || say("this is required")}`);
        return null;
      }
      const value = valueOf(field, input);
      const before = this.#row ? this.#row[field.name] : null;
      if (JSON.stringify(value) === JSON.stringify(before)) continue;
      if (value === null && (field.isKeptIfEmpty || this.#resource.isReplaced)) continue;
      values[field.name] = value;
    }
    return values;
  }

  #refuse(error) {
    const complaints = error.problem?.errors ?? [];
    const fields = complaints.map(({ loc }) => this.#input(String(loc).split(".").pop())).filter(Boolean);
    const text = complaintsOf(error.problem ?? {}).join("\n");
    this.#mark(fields[0] ?? null, text || failureText(error));
  }

  #mark(input, text) {
    $("editor-error").textContent = text;
    input?.setAttribute("aria-invalid", "true");
    input?.focus();
  }

  #close() {
    this.#opening += 1;
    this.#setDrawing(false);
    this.#map?.remove();
    this.#map = null;
  }
}

function inputOf(field, row) {
  const { name, label, options, type = "text", isRequired, scale, isKeptIfEmpty, isNewOnly, ...attributes } = field;
  const value = row?.[name] ?? null;
  if (type === "hours") return hoursField(label, value);
  if (type === "events") return eventsField(label, value);
  const required = isRequired ? "" : undefined;
  const input = options
    ? el("select", { name }, el("option", { value: "" }, "–"), ...Object.entries(options).map(([key, text]) => el("option", { value: key }, text)))
    : el("input", { name, type, required, autocomplete: "off", ...attributes });
  input.value = value === null ? "" : scale ? value / scale : value;
  return el("label", {}, label, input);
}

function valueOf({ type, scale }, input) {
  if (type === "hours") return readHours(input);
  if (type === "events") return readEvents(input);
  const text = input.value.trim();
  if (text === "") return null;
  if (type !== "number") return text;
  return scale ? Math.round(Number(text) * scale) : Number(text);
}
