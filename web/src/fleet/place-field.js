// A field that finds a place by its name: a combobox over GET /places, by keyboard and pointer.
import { getJson } from "../api.js";
import { el } from "../elements.js";
import { say } from "./texts.js";

const DEBOUNCE_MS = 200;
const KINDS = { restaurant: "restaurant", address: "address", street: "street, middle", coordinates: "coordinates" };

export class PlaceField {
  #found = [];
  #foundFor = ""; // the text that was searched for
  #active = -1;
  #searches = 0;
  #timer = 0;

  /** `city()` names the city; `kinds` are those wanted; `onChoose` gets the chosen place. */
  constructor({ id, label, city, kinds, onChoose = () => {} }) {
    Object.assign(this, { id, city, kinds, onChoose, chosen: null });
    this.input = el("input", {
      id,
      role: "combobox",
      "aria-expanded": "false",
      "aria-autocomplete": "list",
      "aria-controls": `${id}-list`,
      autocomplete: "off",
      spellcheck: "false",
      maxlength: "100",
      required: "",
    });
    this.list = el("div", { id: `${id}-list`, role: "listbox", "aria-label": label, hidden: "" });
    this.status = el("p", { class: "small muted", role: "status" });
    this.element = el("div", { class: "field" }, el("label", {}, label, this.input), this.list, this.status);
    this.input.addEventListener("input", () => {
      this.chosen = null;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#find(), DEBOUNCE_MS);
    });
    this.input.addEventListener("keydown", (event) => this.#onKey(event));
    this.input.addEventListener("blur", () => setTimeout(() => this.#close(), 150)); // after a press in the list
  }

  /** Take a place that was not searched for. */
  set(place) {
    clearTimeout(this.#timer);
    this.#searches += 1;
    this.chosen = place;
    this.input.value = place.name;
    this.#close();
    this.status.textContent = place.kind === "street" ? say("The middle of the street: choose the door on the map.") : "";
    this.onChoose(place);
  }

  /** Search for the text; `isChosen` takes the first place that is found. */
  async #find(isChosen = false) {
    clearTimeout(this.#timer);
    const text = this.input.value.trim();
    const search = (this.#searches += 1);
    if (!text) return this.#close();
    const query = `q=${encodeURIComponent(text)}&city=${encodeURIComponent(this.city())}&limit=8`;
    const answer = await getJson(`/places?${query}`).catch(() => null);
    if (search !== this.#searches) return; // outdated by a later input
    if (!answer) return void (this.status.textContent = say("No response."));
    this.#foundFor = text;
    this.#found = answer.places.filter(({ kind }) => this.kinds.includes(kind));
    this.#active = this.#found.length ? 0 : -1;
    this.status.textContent = this.#found.length ? say("{} found", this.#found.length) : say("Nothing found.");
    if (isChosen && this.#found.length) return this.set(this.#found[0]);
    this.#draw();
  }

  #draw() {
    this.list.replaceChildren(
      ...this.#found.map((place, n) => {
        const option = el(
          "div",
          { id: `${this.id}-${n}`, role: "option", "aria-selected": String(n === this.#active) },
          place.name,
          el("span", { class: "muted small" }, ` · ${place.detail ?? say(KINDS[place.kind])}`),
        );
        option.addEventListener("pointerdown", (event) => {
          event.preventDefault();
          this.set(place);
        });
        return option;
      }),
    );
    this.list.hidden = !this.#found.length;
    this.input.setAttribute("aria-expanded", String(!this.list.hidden));
    if (this.#active >= 0) this.input.setAttribute("aria-activedescendant", `${this.id}-${this.#active}`);
    this.list.children[this.#active]?.scrollIntoView({ block: "nearest" });
  }

  #onKey(event) {
    const isOutdated = this.#foundFor !== this.input.value.trim();
    if (event.key === "Enter" && !this.chosen && isOutdated && this.input.value.trim()) {
      event.preventDefault(); // the list is of an earlier text
      return this.#find(true);
    }
    if (this.list.hidden) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      return this.#close();
    }
    if (event.key === "Enter") {
      event.preventDefault();
      return this.set(this.#found[this.#active]);
    }
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    this.#active = (this.#active + by + this.#found.length) % this.#found.length;
    this.#draw();
  }

  #close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }
}
