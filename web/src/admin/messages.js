// The dialog that confirms, reports an import, or shows secrets once.
import { el } from "../elements.js";
import { failureText } from "../refusals.js";
import { locale, say } from "./texts.js";

const $ = (id) => document.getElementById(id);

/** Show a dialog. Resolves to whether `ok` was pressed and `act()`, if given, succeeded. */
export function ask({ title, body, ok, close = say("Cancel"), isDestructive = false, act }) {
  const dialog = $("message");
  $("message-title").textContent = title;
  $("message-body").replaceChildren(...body);
  $("message-error").textContent = "";
  $("message-ok").hidden = !ok;
  $("message-ok").textContent = ok ?? "";
  $("message-ok").className = isDestructive ? "destructive" : "primary";
  $("message-close").textContent = close;
  return new Promise((resolve) => {
    $("message-ok").onclick = async () => {
      $("message-ok").disabled = true;
      try {
        await act?.();
        dialog.close();
        resolve(true);
      } catch (error) {
        $("message-error").textContent = failureText(error);
      }
      $("message-ok").disabled = false;
    };
    $("message-close").onclick = () => {
      dialog.close();
      resolve(false);
    };
    // Escape. The event comes with a later frame, which the next dialog may precede.
    dialog.onclose = () => dialog.open || resolve(false);
    dialog.showModal();
    if (isDestructive || !ok) $("message-close").focus();
  });
}

/** Show the link with which a driver sets a phone up, once: {link, expires_at, qr_svg}. */
export function showInvitation(name, { link, expires_at, qr_svg }) {
  const code = el("div", { class: "qr", role: "img", "aria-label": say("The link as a QR code") });
  code.innerHTML = qr_svg;
  const until = new Date(expires_at).toLocaleString(locale, { weekday: "long", hour: "2-digit", minute: "2-digit", timeZoneName: "short" });
  const copied = el("span", { class: "small", role: "status" });
  const copy = async () => {
    await navigator.clipboard.writeText(link);
    copied.textContent = say(" Copied.");
  };
  return ask({
    title: say("A phone for {}", name),
    body: [
      el("p", {}, say("{} opens this link on the phone, or scans the code. It works once, until {}, and ends an earlier link. The new phone replaces the old one.", name, until)),
      code,
      el("p", {}, el("a", { href: link, class: "mono", id: "invitation" }, link)),
      el("div", { class: "actions" }, el("button", { type: "button", onclick: copy }, say("Copy the link")), copied),
    ],
    close: say("Close"),
  });
}

/**
 * Show the secrets of new drivers: [{driver_id, mqtt_password, token}]. They cannot be shown again.
 * Resolves to whether `ok` was pressed.
 */
export function showSecrets(secrets, ok) {
  const rows = secrets.map((one) =>
    el("tr", {}, ...[one.driver_id, one.mqtt_password, one.token].map((text) => el("td", { class: "mono" }, text))),
  );
  const titles = [say("Id"), say("MQTT password"), say("Token")].map((text) => el("th", { scope: "col" }, text));
  const text = ["driver_id,mqtt_password,token", ...secrets.map((one) => `${one.driver_id},${one.mqtt_password},${one.token}`)];
  const file = URL.createObjectURL(new Blob([`${text.join("\r\n")}\r\n`], { type: "text/csv" }));
  return ask({
    title: secrets.length === 1 ? say("Secrets of {}", secrets[0].driver_id) : say("Secrets of {} drivers", secrets.length),
    body: [
      el("p", {}, say("They are shown once. Only hashes of them are stored.")),
      el("table", { tabindex: "0", "aria-label": say("Secrets") }, el("thead", {}, el("tr", {}, ...titles)), el("tbody", {}, ...rows)),
      el("a", { href: file, download: "secrets.csv" }, say("Download them as CSV")),
    ],
    ok,
    close: say("Close"),
  }).finally(() => URL.revokeObjectURL(file));
}
