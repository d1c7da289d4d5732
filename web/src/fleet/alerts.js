// The alert tray: open alerts, each opens its order or driver and can be acknowledged. A server
// without alerts has no tray.
import { AnswerOrder, ApiProblem, getJson } from "../api.js";
import { el, fill } from "../elements.js";
import { failureText, send } from "./commands.js";
import { mayCommand } from "./rights.js";
import { say, since } from "./texts.js";

const $ = (id) => document.getElementById(id);
const KINDS = {
  late: "Late",
  lost: "Courier lost",
  unassigned: "No courier found",
  over_quota: "Sends too much",
  webhook_off: "Webhook switched off",
};
const WITHOUT_ALERTS_MS = 60_000;

export class AlertTray {
  #hiddenUntil = 0;
  #answers = new AnswerOrder();

  /** `open(alert)` gets an alert whose order or driver is to be shown. */
  constructor({ open }) {
    this.open = open;
  }

  async refresh() {
    if (Date.now() < this.#hiddenUntil) return;
    try {
      const isNewer = this.#answers.begin();
      const { alerts } = await getJson("/alerts?open=true");
      if (!isNewer()) return;
      this.#draw(alerts);
    } catch (error) {
      if (!(error instanceof ApiProblem) || error.status !== 404) throw error;
      $("alerts").hidden = true;
      this.#hiddenUntil = Date.now() + WITHOUT_ALERTS_MS;
    }
  }

  /** Move the focus to the first alert that is not acknowledged. */
  focus() {
    $("alerts").open = true;
    ($("alert-list").querySelector("li:not(.acknowledged) button") ?? $("alerts").querySelector("summary")).focus();
  }

  #draw(alerts) {
    $("alerts").hidden = false;
    $("alert-count").textContent = alerts.filter((one) => !one.acknowledged_at).length;
    const minute = Math.floor(Date.now() / 60_000);
    const shown = alerts.map(({ alert_id, acknowledged_at }) => [alert_id, acknowledged_at]);
    const focused = $("alert-list").contains(document.activeElement) && document.activeElement.id;
    fill($("alert-list"), [minute, shown, mayCommand()], () =>
      alerts.length ? alerts.map((one) => this.#item(one)) : [el("li", { class: "muted small" }, say("No alerts."))],
    );
    if (focused && !$("alert-list").contains(document.activeElement)) {
      ($(focused) ?? $("alert-list").querySelector("button") ?? $("alerts").querySelector("summary")).focus();
    }
  }

  #item(alert) {
    const subject = alert.driver_id ?? alert.order_id?.slice(0, 8) ?? "";
    const age = since((Date.now() - Date.parse(alert.raised_at)) / 1000);
    const text = [say(KINDS[alert.kind] ?? alert.kind), subject, age].filter(Boolean).join(" · ");
    return el(
      "li",
      { class: alert.acknowledged_at ? "acknowledged" : "" },
      el("button", { type: "button", id: `alert-${alert.alert_id}`, onclick: () => this.open(alert) }, text),
      alert.acknowledged_at
        ? el("span", { class: "small" }, say("seen by {}", alert.acknowledged_by))
        : mayCommand() && el(
            "button",
            { type: "button", id: `acknowledge-${alert.alert_id}`, "aria-label": say("Acknowledge: {}", text), onclick: () => this.#acknowledge(alert) },
            say("Acknowledge"),
          ),
    );
  }

  async #acknowledge(alert) {
    $("alert-status").textContent = "";
    try {
      await send("POST", `/alerts/${alert.alert_id}/acknowledge`);
      $("alert-status").textContent = say("Acknowledged.");
    } catch (error) {
      $("alert-status").textContent = failureText(error);
    }
    await this.refresh().catch(() => {}); // polled in any case
  }
}
