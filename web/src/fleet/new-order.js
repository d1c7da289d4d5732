// The form of a new order: pickup, door, customer, times. Confirms it at once if wanted.
import { el } from "../elements.js";
import { failureText, send } from "./commands.js";
import { PlaceField } from "./place-field.js";
import { say } from "./texts.js";

const $ = (id) => document.getElementById(id);
const LANGUAGES = { "": "–", it: "Italiano", en: "English", fr: "Français", de: "Deutsch" };
const CONTACT_RULES = { none: "No contact", call: "Call", text: "Text message", any: "Call or text" };

export class NewOrderForm {
  /** `pickOnMap(onPlace)` waits for a press on the map; `onCreated(order)` gets the new order. */
  constructor({ city, pickOnMap, drawPlaces, onCreated, notify, onOpenChange }) {
    Object.assign(this, { city, pickOnMap, drawPlaces, onCreated, notify, onOpenChange });
  }

  get isOpen() {
    return !$("new-order").hidden;
  }

  open() {
    if (!this.isOpen) this.#build();
    $("new-order").hidden = false;
    this.onOpenChange();
    this.pickup.input.focus();
  }

  close() {
    if (!this.isOpen) return;
    $("new-order").hidden = true;
    $("new-order").replaceChildren();
    this.pickOnMap(null);
    this.drawPlaces(null);
    this.onOpenChange();
    $("new-order-button").focus();
  }

  #build() {
    const city = () => this.city().name;
    const onChoose = () => this.#drawPlaces();
    this.pickup = new PlaceField({
      id: "pickup", label: say("Pickup: restaurant or address"), city, onChoose,
      kinds: ["restaurant", "address", "street", "coordinates"],
    });
    this.door = new PlaceField({
      id: "door", label: say("Deliver to: street and number"), city, onChoose,
      kinds: ["address", "street", "coordinates"],
    });
    const field = (name, label, attributes = {}) =>
      el("label", {}, say(label), el(attributes.rows ? "textarea" : "input", { name, autocomplete: "off", ...attributes }));
    const choice = (name, label, options) =>
      el("label", {}, say(label), el("select", { name }, ...Object.entries(options).map(([value, text]) => el("option", { value }, say(text)))));
    const confirm = el("input", { type: "checkbox", name: "confirm" });
    confirm.checked = true;
    const form = el(
      "form",
      { id: "new-order-form", autocomplete: "off" },
      this.pickup.element,
      this.door.element,
      el("div", { class: "actions" }, el("button", { type: "button", id: "pick-door", onclick: () => this.#pickDoor() }, say("Choose the door on the map"))),
      el(
        "div",
        { class: "columns" },
        field("customer_name", "Customer", { maxlength: "200" }),
        field("customer_phone", "Phone", { type: "tel", maxlength: "40", pattern: "\\+?[0-9][0-9 \\(\\)\\.\\/\\-]{2,39}" }),
        choice("customer_language", "Language", LANGUAGES),
        choice("contact_rule", "Contact", CONTACT_RULES),
        field("ready_min", "Ready in, minutes", { type: "number", min: "0", max: "1440" }),
        field("promised_min", "Promised in, minutes", { type: "number", min: "0", max: "1440" }),
        field("external_id", "Number", { maxlength: "200" }),
        field("pin", "PIN", { pattern: "[0-9]{4,8}|auto", maxlength: "8", placeholder: "auto" }),
      ),
      field("door_note", "Door note", { maxlength: "2000" }),
      field("items", "Items", { rows: "2", maxlength: "2000" }),
      el("label", { class: "check" }, confirm, say("Confirm it at once")),
      el("div", { class: "actions" }, el("button", { class: "primary", id: "create-order" }, say("Create order"))),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#create(form.elements);
    });
    const closeButton = el("button", { type: "button", class: "close", "aria-label": say("Close"), onclick: () => this.close() }, "✕");
    $("new-order").replaceChildren(el("h2", {}, el("span", {}, say("New order")), closeButton), form);
  }

  #drawPlaces() {
    const point = (field) => field.chosen && [field.chosen.place.lon_deg, field.chosen.place.lat_deg];
    const door = point(this.door);
    const pickup = point(this.pickup);
    if (!door && !pickup) return this.drawPlaces(null);
    this.drawPlaces({
      restaurant: door ? pickup : null,
      restaurantName: this.pickup.chosen?.name ?? "",
      door: door ?? pickup,
      doorName: door ? this.door.chosen.name : this.pickup.chosen.name,
    });
  }

  #pickDoor() {
    this.notify(say("Press the door's place on the map."));
    this.pickOnMap(([lon_deg, lat_deg]) => {
      const name = this.door.chosen?.name ?? `${lat_deg.toFixed(5)}, ${lon_deg.toFixed(5)}`;
      this.door.set({ kind: "coordinates", name, place: { lon_deg, lat_deg } });
      this.notify();
      $("pick-door").focus();
    });
  }

  async #create(fields) {
    const missing = [this.pickup, this.door].find((one) => !one.chosen);
    if (missing) {
      this.notify("", say("Choose a place from the list."));
      return missing.input.focus();
    }
    this.notify();
    $("create-order").disabled = true;
    try {
      const created = await send("POST", "/orders", this.#body(fields));
      let order = created;
      if (fields.confirm.checked) order = await send("POST", `/orders/${created.order_id}/confirm`);
      this.close();
      await this.onCreated(order, created.customer_link);
    } catch (error) {
      this.notify("", failureText(error));
    } finally {
      if ($("create-order")) $("create-order").disabled = false;
    }
  }

  #body(fields) {
    const pickup = this.pickup.chosen;
    const door = this.door.chosen;
    const inMinutes = (name) => {
      const text = fields[name].value;
      return text === "" ? undefined : new Date(Math.floor(Date.now() / 60_000 + Number(text)) * 60_000).toISOString();
    };
    const text = (name) => fields[name].value.trim() || undefined;
    return {
      ...(pickup.restaurant_id === null || pickup.restaurant_id === undefined
        ? { pickup: { name: pickup.name, ...pickup.place } }
        : { restaurant_id: pickup.restaurant_id }),
      destination: door.place,
      address: this.door.input.value.trim() || undefined,
      customer_name: text("customer_name"),
      customer_phone: text("customer_phone"),
      customer_language: text("customer_language"),
      contact_rule: text("contact_rule"),
      external_id: text("external_id"),
      door_note: text("door_note"),
      items: text("items"),
      pin: text("pin"),
      ready_at: inMinutes("ready_min"),
      promised_to: inMinutes("promised_min"),
    };
  }
}
