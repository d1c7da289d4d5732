// Webhooks: the choice of events in a form, the actions of a row, and its deliveries.
import { fetchAsStaff, getJson } from "../api.js";
import { el } from "../elements.js";
import { failureText } from "../refusals.js";
import { ask } from "./messages.js";
import { locale, say } from "./texts.js";

const EVENTS = {
  created: say("created"), confirmed: say("confirmed"), assigned: say("assigned"), at_restaurant: say("at the restaurant"),
  picked_up: say("picked up"), arriving: say("arriving"), at_customer: say("at the customer"), delivered: say("delivered"),
  cancelled: say("cancelled"), failed: say("failed"), late: say("late"), nearby: say("nearby"),
};
const OUTCOMES = { all: say("all"), pending: say("pending"), failed: say("failed"), delivered: say("delivered") };
const OFF = { admin: say("off"), failing: say("off: no success for a day"), gone: say("off: the receiver is gone") };
const PAGE = 50;
const time = (text) => (text ? new Date(text).toLocaleString(locale, { dateStyle: "short", timeStyle: "medium" }) : "");

export function eventsOf({ events, with_contact: hasContact }) {
  const names = events ? events.map((one) => EVENTS[one.slice(6)]).join(", ") : say("all");
  return hasContact ? say("{}, with phone numbers of customers", names) : names;
}

export function stateOf(row) {
  if (!row.is_on) return OFF[row.off_reason];
  return row.failing_since ? say("failing since {}", time(row.failing_since)) : say("on");
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
    page.finish(row.is_on ? say("{} is off.", row.url) : say("{} is on.", row.url));
  });
  const rotate = () => {
    let answer;
    const act = async () => (answer = await (await fetchAsStaff(`${path}/rotate`, { method: "POST" })).json());
    const body = [el("p", {}, say("For a day, messages have a signature by each of both secrets."))];
    ask({ title: say("A new secret for {}?", row.url), body, ok: say("New secret"), act }).then((isDone) => isDone && showWebhookSecret(answer));
  };
  const remove = async () => {
    const act = () => fetchAsStaff(path, { method: "DELETE" });
    const body = [el("p", {}, say("Its deliveries go, too: nothing more is sent."))];
    if (await ask({ title: say("Delete {}?", row.url), body, ok: say("Delete"), isDestructive: true, act })) page.finish(say("{} is deleted.", row.url));
  };
  return [
    button(row.is_on ? say("Switch off") : say("Switch on"), turn),
    button(say("Deliveries"), () => showDeliveries(row)),
    button(say("New secret"), rotate),
    button(say("Delete"), remove),
  ];
}

/** Show the secret of a new webhook, once. */
export function showWebhookSecret({ url, secret }) {
  const body = [
    el("p", {}, say("The receiver checks signatures with it. It is shown once.")),
    el("p", { class: "mono", id: "webhook-secret" }, secret),
  ];
  return ask({ title: say("The secret of {}", url), body, close: say("Close") });
}

function showDeliveries({ webhook_id: id, url }) {
  const rows = el("tbody");
  const older = el("button", { type: "button" }, say("Older ones"));
  const status = el("p", { class: "small", role: "status" });
  const outcome = el(
    "select",
    { "aria-label": say("Which deliveries") },
    ...Object.entries(OUTCOMES).map(([value, text]) => el("option", { value }, text)),
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
      status.textContent = rows.childElementCount ? "" : say("There are none.");
    } catch (error) {
      if (mine === loads) status.textContent = failureText(error);
    }
  };
  const reload = () => {
    rows.replaceChildren();
    before = null;
    load();
  };
  outcome.addEventListener("change", reload);
  older.addEventListener("click", load);
  const titles = [say("Event"), say("Order"), say("At"), say("State"), say("Last answer"), say("Actions")];
  const head = el("thead", {}, el("tr", {}, ...titles.map((text) => el("th", { scope: "col" }, text))));
  const table = el("table", { tabindex: "0", "aria-label": say("Deliveries") }, head, rows);
  load();
  return ask({
    title: say("Deliveries to {}", url),
    body: [outcome, status, table, older],
    close: say("Close"),
  });
}

function deliveryRow(id, one, status) {
  const send = async () => {
    try {
      await fetchAsStaff(`/webhooks/${id}/deliveries/${one.delivery_id}/send`, { method: "POST" });
      status.textContent = say("{} is sent again.", one.event_type);
    } catch (error) {
      status.textContent = failureText(error);
    }
  };
  const outcome = OUTCOMES[one.outcome] ?? one.outcome;
  const state = one.due_at ? say("{}, next {}", outcome, time(one.due_at)) : outcome;
  const texts = [one.event_type.slice(6), one.order_id.slice(0, 8), time(one.created_at), `${state} (${one.attempts})`, one.last_error ?? one.last_status ?? ""];
  const label = say("Send {} of {} again", one.event_type, one.order_id.slice(0, 8));
  return el(
    "tr",
    { "data-delivery": String(one.delivery_id) },
    ...texts.map((text) => el("td", {}, String(text))),
    el("td", {}, el("button", { type: "button", "aria-label": label, onclick: send }, say("Send again"))),
  );
}
