// Open orders, those that need somebody first, and what staff may do with them.
import { ago, el, lasting, ORDER_STATES } from "../words.js";
import { ask, fetchAsStaff, Problem, Refused, showTheDoor } from "./asking.js";

const $ = (id) => document.getElementById(id);
const GROUPS = {
  waiting: ["Waiting for a courier", 5],
  stuck: ["Stuck", 20],
  under_way: ["Under way", 50],
};
const WHY = { no_progress: "no progress", courier_lost: "courier lost" };
const COMMANDS = {
  confirm: ["Confirm", "Confirmed."],
  assign: ["Assign", "Assigned to"],
  reassign: ["Reassign", "Reassigned to"],
  fail: ["Give up", "Given up."],
  cancel: ["Cancel order", "Cancelled."],
};
const GRAVE = { fail: "Yes, give it up", cancel: "Yes, cancel it" }; // asked twice

export class Orders {
  #expanded = new Set();
  #keys = new Map(); // of a command that had no answer: said again under its key it is the same
  #answer = { orders: [], counts: {}, allowed: {}, at: 0 };

  constructor({ nameOf, placeOf, choose }) {
    Object.assign(this, { nameOf, placeOf, choose, chosenId: null });
  }

  async refresh() {
    this.#answer = await ask("/fleet/orders");
    this.#ahead = Date.parse(this.#answer.at) - Date.now();
    this.draw();
  }
  #ahead = 0;

  get(orderId) {
    return this.#answer.orders.find((one) => one.order_id === orderId);
  }

  show(orderId) {
    if (orderId !== this.chosenId) {
      $("order").replaceChildren();
      this.#say();
    }
    this.chosenId = orderId;
    this.draw();
  }

  draw() {
    const focused = document.activeElement?.id;
    $("orders").replaceChildren(...Object.keys(GROUPS).flatMap((group) => this.#group(group)));
    if (focused && document.activeElement?.id !== focused) $(focused)?.focus({ preventScroll: true });
    this.#drawChosen();
  }

  #sinceS(instant) {
    return (Date.now() + this.#ahead - Date.parse(instant)) / 1000;
  }

  #group(group) {
    const [title, few] = GROUPS[group];
    const all = this.#answer.orders.filter((one) => one.group === group);
    const count = this.#answer.counts[group] ?? 0;
    const shown = this.#expanded.has(group) ? all : all.slice(0, few);
    const turn = () => {
      if (!this.#expanded.delete(group)) this.#expanded.add(group);
      this.draw();
    };
    const rest = count - shown.length;
    return [
      el("h2", { id: `group-${group}` }, el("b", {}, `${count}`), ` ${title}`),
      el("ol", { "aria-labelledby": `group-${group}` }, ...shown.map((one) => this.#item(one))),
      all.length > few
        ? el(
            "button",
            { type: "button", id: `more-${group}`, class: "more", onclick: turn },
            this.#expanded.has(group) ? "Fewer" : `${rest} more`,
          )
        : "",
    ];
  }

  #item(order) {
    const [word, colour] = ORDER_STATES[order.state];
    const since = order.group === "waiting" ? order.created_at : order.state_at;
    const told = [
      order.driver_id ?? "no courier",
      order.stuck ? WHY[order.stuck] : null,
      order.group === "waiting" ? `waits ${lasting(this.#sinceS(since))}` : ago(this.#sinceS(since)),
    ];
    const chosen = order.order_id === this.chosenId;
    const button = el(
      "button",
      {
        type: "button",
        id: `order-${order.order_id}`,
        class: `${chosen ? "chosen" : ""} ${order.stuck ? "stuck" : ""}`,
        "aria-pressed": String(chosen),
        onclick: () => this.choose(order.driver_id, order.order_id),
      },
      el("span", {}, this.nameOf(order.restaurant_id)),
      el("span", { class: "pill", color: colour }, word),
      el("span", { class: "soft small mono" }, order.order_id.slice(0, 8)),
      el("span", { class: "soft small" }, told.filter(Boolean).join(" · ")),
    );
    return el("li", {}, button);
  }

  #drawChosen() {
    const order = this.get(this.chosenId);
    $("order").hidden = !order;
    if (!order) return $("order").replaceChildren();
    const stamp = `${order.order_id} ${order.state} ${order.driver_id}`;
    if ($("order").dataset.stamp === stamp && $("order").childElementCount) return; // as it stands
    $("order").dataset.stamp = stamp;
    const focused = $("order").contains(document.activeElement) && document.activeElement.id;
    const [word, colour] = ORDER_STATES[order.state];
    const allowed = this.#answer.allowed[order.state] ?? [];
    const commands = Object.keys(COMMANDS).filter((command) => allowed.includes(command));
    const choosesDriver = commands.some((one) => one === "assign" || one === "reassign");
    const list = el("datalist", { id: "near-drivers" });
    const courier = el("input", {
      id: "courier",
      list: "near-drivers",
      placeholder: "the nearest",
      autocomplete: "off",
      spellcheck: "false",
      maxlength: "64",
    });
    $("order").replaceChildren(
      el(
        "h2",
        {},
        el("span", {}, `Order ${order.order_id.slice(0, 8)}`),
        el("span", { class: "pill", color: colour }, word),
      ),
      el("p", {}, this.nameOf(order.restaurant_id), el("span", { class: "soft" }, ` · ${order.driver_id ?? "no courier"}`)),
      choosesDriver ? el("label", { for: "courier", class: "small" }, "Courier ", courier, list) : "",
      el(
        "div",
        { class: "actions" },
        ...commands.map((command) => this.#button(command, order, courier)),
      ),
    );
    if (focused !== false) ($(focused) ?? $("order").querySelector("button"))?.focus();
    if (choosesDriver) this.#listNear(order, list);
  }

  #button(command, order, courier) {
    const [word] = COMMANDS[command];
    const button = el("button", { type: "button", id: `do-${command}` }, word);
    const calm = () => {
      button.textContent = word;
      button.classList.remove("grave");
    };
    button.addEventListener("blur", calm);
    button.addEventListener("click", async () => {
      if (GRAVE[command] && !button.classList.contains("grave")) {
        button.textContent = GRAVE[command];
        button.classList.add("grave");
        return;
      }
      calm();
      const takesDriver = command === "assign" || command === "reassign";
      const driverId = takesDriver ? courier.value.trim() : "";
      button.disabled = true;
      await this.#apply(command, order.order_id, driverId);
      button.disabled = false;
    });
    return button;
  }

  /** Nothing is shown as done that the answer doesn't say. */
  async #apply(command, orderId, driverId) {
    this.#say();
    const name = `${orderId} ${command} ${driverId}`;
    const key = this.#keys.get(name) ?? randomKey();
    this.#keys.set(name, key);
    try {
      const answer = await fetchAsStaff(`/orders/${orderId}/${command}`, {
        method: "POST",
        headers: { "Content-Type": "application/json", "Idempotency-Key": key },
        body: driverId ? JSON.stringify({ driver_id: driverId }) : "{}",
      });
      this.#keys.delete(name);
      const order = await answer.json();
      const said = COMMANDS[command][1];
      this.#say(said.endsWith(".") ? said : `${said} ${order.driver_id}.`);
      if (orderId === this.chosenId) this.choose(order.driver_id, orderId);
    } catch (error) {
      if (error instanceof Problem && error.status < 500) {
        this.#keys.delete(name);
        this.#say("", refusal(error));
      } else if (error instanceof Refused) {
        showTheDoor(error.message);
      } else {
        this.#say("", "No answer: it may have happened or not. Once more is safe.");
      }
    }
    await this.refresh().catch(() => {}); // asked again in any case
  }

  #say(said = "", refused = "") {
    $("said").textContent = said;
    $("refused").textContent = refused;
  }

  async #listNear(order, list) {
    const place = this.placeOf(order.restaurant_id);
    if (!place) return;
    const query = `lon_deg=${place[0]}&lat_deg=${place[1]}&limit=8`;
    const near = await ask(`/drivers/nearest?${query}`).catch(() => ({ drivers: [] }));
    list.replaceChildren(
      ...near.drivers.map((one) =>
        el("option", { value: one.driver_id }, `${Math.round(one.distance_m)} m`),
      ),
    );
  }
}

/** What a refusal says, and what would be possible. */
function refusal({ problem, message }) {
  const { current_state: state, allowed } = problem;
  if (!state) return message;
  const word = (ORDER_STATES[state]?.[0] ?? state).toLowerCase();
  const can = (allowed ?? []).map((one) => one.replace("_", " "));
  return `Not possible: the order is ${word}. Possible: ${can.join(", ") || "nothing more"}.`;
}

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("-");
}
