// Webhooks: the choice of events in a form, the actions of a row, and its deliveries.
import { fetchAsStaff, getJson } from "../api.js";
import { el } from "../elements.js";
import { ask } from "./messages.js";

const EVENTS = {
  created: "created", confirmed: "confirmed", assigned: "assigned", at_restaurant: "at the restaurant",
  picked_up: "picked up", arriving: "arriving", at_customer: "at the customer", delivered: "delivered",
  cancelled: "cancelled", failed: "failed", late: "late", nearby: "nearby",
};
const OFF = { admin: "off", failing: "off: no success for a day", gone: "off: the receiver is gone" };
const PAGE = 50;
const time = (text) => (text ? new Date(text).toLocaleString([], { dateStyle: "short", timeStyle: "medium" }) : "");

export const eventsOf = ({ events }) => (events ? events.map((one) => EVENTS[one.slice(6)]).join(", ") : "all");

export function stateOf(row) {
  if (!row.is_on) return OFF[row.off_reason];
  return row.failing_since ? `failing since ${time(row.failing_since)}` : "on";
}

/** Checkboxes of events; all of them stands for all that there will be. */
export function eventsField(label, chosen) {
  const checks = Object.entries(EVENTS).map(([key, text]) => {
    const check = el("input", { type: "checkbox", value: `order.${key}` });
    check.checked = !chosen || chosen.includes(check.value);
    return el("label", {}, check, text);
  });
  return el("fieldset", { "data-field": "events" }, el("legend", {}, label), el("div", { class: "days" }, ...checks));
}

/** The chosen events as the API takes them: null for all, and for none. */
export function readEvents(field) {
  const all = [...field.querySelectorAll("input")];
  const chosen = all.filter(({ checked }) => checked).map(({ value }) => value);
  return chosen.length && chosen.length < all.length ? chosen : null;
}

/** The buttons of a row. `page` has report(error) and finish(text). */
export function webhookActions(row, page) {
  const path = `/webhooks/${row.webhook_id}`;
  const button = (text, onclick) => el("button", { type: "button", "aria-label": `${text}: ${row.url}`, onclick }, text);
  const doing = (work) => () => work().catch(page.report);
  const turn = doing(async () => {
    await fetchAsStaff(path, { method: "PATCH", body: JSON.stringify({ is_on: !row.is_on }), headers: { "Content-Type": "application/json" } });
    page.finish(`${row.url} is ${row.is_on ? "off" : "on"}.`);
  });
  const rotate = () => {
    let answer;
    const act = async () => (answer = await (await fetchAsStaff(`${path}/rotate`, { method: "POST" })).json());
    const body = [el("p", {}, "For a day, messages have a signature by each of both secrets.")];
    ask({ title: `A new secret for ${row.url}?`, body, ok: "New secret", act }).then((isDone) => isDone && showWebhookSecret(answer));
  };
  const remove = async () => {
    const act = () => fetchAsStaff(path, { method: "DELETE" });
    const body = [el("p", {}, "Its deliveries go, too: nothing more is sent.")];
    if (await ask({ title: `Delete ${row.url}?`, body, ok: "Delete", isDestructive: true, act })) page.finish(`${row.url} is deleted.`);
  };
  return [
    button(row.is_on ? "Switch off" : "Switch on", turn),
    button("Deliveries", () => showDeliveries(row)),
    button("New secret", rotate),
    button("Delete", remove),
  ];
}

/** Show the secret of a new webhook, once. */
export function showWebhookSecret({ url, secret }) {
  const body = [
    el("p", {}, "The receiver checks signatures with it. It is shown once."),
    el("p", { class: "mono", id: "webhook-secret" }, secret),
  ];
  return ask({ title: `The secret of ${url}`, body, close: "Close" });
}

function showDeliveries({ webhook_id: id, url }) {
  const rows = el("tbody");
  const older = el("button", { type: "button" }, "Older ones");
  const status = el("p", { class: "small", role: "status" });
  const outcome = el(
    "select",
    { "aria-label": "Which deliveries" },
    ...["all", "pending", "failed", "delivered"].map((value) => el("option", { value }, value)),
  );
  let before = null;
  let loads = 0; // the answer of an earlier choice is dropped
  const load = async () => {
    const mine = (loads += 1);
    const wanted = outcome.value === "all" ? "" : `&outcome=${outcome.value}`;
    try {
      const page = await getJson(`/webhooks/${id}/deliveries?limit=${PAGE}${wanted}${before ? `&before=${before}` : ""}`);
      if (mine !== loads) return;
      rows.append(...page.deliveries.map((one) => deliveryRow(id, one, status)));
      before = page.deliveries.at(-1)?.delivery_id ?? before;
      older.hidden = page.deliveries.length < PAGE;
      status.textContent = rows.childElementCount ? "" : "There are none.";
    } catch (error) {
      if (mine === loads) status.textContent = error.message;
    }
  };
  const reload = () => {
    rows.replaceChildren();
    before = null;
    load();
  };
  outcome.addEventListener("change", reload);
  older.addEventListener("click", load);
  const titles = ["Event", "Order", "At", "State", "Last answer", "Actions"];
  const head = el("thead", {}, el("tr", {}, ...titles.map((text) => el("th", { scope: "col" }, text))));
  const table = el("table", { tabindex: "0", "aria-label": "Deliveries" }, head, rows);
  load();
  return ask({
    title: `Deliveries to ${url}`,
    body: [outcome, status, table, older],
    close: "Close",
  });
}

function deliveryRow(id, one, status) {
  const send = async () => {
    try {
      await fetchAsStaff(`/webhooks/${id}/deliveries/${one.delivery_id}/send`, { method: "POST" });
      status.textContent = `${one.event_type} is sent again.`;
    } catch (error) {
      status.textContent = error.message;
    }
  };
  const state = one.due_at ? `${one.outcome}, next ${time(one.due_at)}` : one.outcome;
  const texts = [one.event_type.slice(6), one.order_id.slice(0, 8), time(one.created_at), `${state} (${one.attempts})`, one.last_error ?? one.last_status ?? ""];
  const label = `Send ${one.event_type} of ${one.order_id.slice(0, 8)} again`;
  return el(
    "tr",
    { "data-delivery": String(one.delivery_id) },
    ...texts.map((text) => el("td", {}, String(text))),
    el("td", {}, el("button", { type: "button", "aria-label": label, onclick: send }, "Send again")),
  );
}
