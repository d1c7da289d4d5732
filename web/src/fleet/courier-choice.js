// The couriers who may take the selected order, ranked: choose one by radio button or a digit.
import { AnswerOrder, getJson } from "../api.js";
import { el } from "../elements.js";
import { PRESENCES } from "../labels.js";
import { minutes } from "../times.js";
import { decimal, say, since } from "./texts.js";

const $ = (id) => document.getElementById(id);
const MAX_COURIERS = 8; // so that each has a digit

export class CourierChoice {
  #form = null;
  #answers = new AnswerOrder();

  /** Keep the text field and the radio buttons of a form in step. */
  attach(form) {
    this.#form = form;
    const field = form.querySelector("#courier");
    form.addEventListener("change", ({ target }) => {
      if (target.name === "ranked") field.value = target.value;
    });
    field.addEventListener("input", () => {
      for (const one of this.#radios()) one.checked = one.value === field.value.trim();
    });
  }

  async refresh(orderId) {
    const form = this.#form;
    const isNewer = this.#answers.begin();
    const { couriers } = await getJson(`/orders/${orderId}/couriers?limit=${MAX_COURIERS}`);
    if (form !== this.#form || !form.isConnected || !isNewer()) return;
    const chosen = form.querySelector("#courier").value.trim();
    const focused = document.activeElement?.name === "ranked" ? document.activeElement.value : null;
    const items = couriers.map((one, n) => courierItem(one, n + 1, one.driver_id === chosen));
    $("couriers").replaceChildren(...items);
    if (!couriers.length) $("couriers").append(el("li", { class: "muted small" }, say("No courier is free.")));
    this.#radios().find((one) => one.value === focused)?.focus();
  }

  /** Choose the courier of a rank, from 1. */
  choose(rank) {
    const radio = this.#radios()[rank - 1];
    if (!radio || radio.disabled) return;
    radio.click();
    radio.focus();
  }

  #radios() {
    return [...(this.#form?.isConnected ? this.#form.querySelectorAll("[name=ranked]") : [])];
  }
}

function courierItem(courier, rank, isChosen) {
  const radio = el("input", { type: "radio", name: "ranked", value: courier.driver_id });
  radio.checked = isChosen;
  radio.disabled = courier.is_current;
  const orders = courier.open_orders;
  const facts = [
    `${decimal((courier.distance_m / 1000).toFixed(1))} km`,
    courier.is_current ? say("has this order") : orders ? say(orders === 1 ? "1 order" : "{} orders", orders) : null,
    courier.is_returning ? say("takes an order back") : orders || courier.is_current ? null : say("free"),
    courier.battery === null ? null : say("battery {} %", Math.round(courier.battery * 100)),
    courier.presence === "online" ? null : say(PRESENCES[courier.presence].label).toLowerCase(),
    since(courier.age_s),
  ];
  const name = courier.name && courier.name !== courier.driver_id ? `${courier.driver_id} · ${courier.name}` : courier.driver_id;
  return el(
    "li",
    {},
    el(
      "label",
      {},
      radio,
      el("span", {}, `${rank}. ${name}`),
      el("b", {}, minutes(courier.pickup_s)),
      el("small", {}, facts.filter(Boolean).join(" · ")),
    ),
  );
}
