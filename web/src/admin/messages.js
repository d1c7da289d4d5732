// The dialog that confirms, reports an import, or shows secrets once.
import { el } from "../elements.js";

const $ = (id) => document.getElementById(id);

/** Show a dialog. Resolves to whether `ok` was pressed and `act()`, if given, succeeded. */
export function ask({ title, body, ok, close = "Cancel", isDestructive = false, act }) {
  const dialog = $("message");
  $("message-title").textContent = title;
  $("message-body").replaceChildren(...body);
  $("message-error").textContent = "";
  $("message-ok").hidden = !ok;
  $("message-ok").textContent = ok ?? "";
  $("message-ok").className = isDestructive ? "destructive" : "primary";
  $("message-close").textContent = close;
  return new Promise((resolve) => {
    let isDone = false;
    $("message-ok").onclick = async () => {
      $("message-ok").disabled = true;
      try {
        await act?.();
        isDone = true;
        dialog.close();
      } catch (error) {
        $("message-error").textContent = error.message;
      }
      $("message-ok").disabled = false;
    };
    $("message-close").onclick = () => dialog.close();
    dialog.onclose = () => resolve(isDone);
    dialog.showModal();
    if (isDestructive || !ok) $("message-close").focus();
  });
}

/** Show the link with which a driver sets a phone up, once: {link, expires_at, qr_svg}. */
export function showInvitation(name, { link, expires_at, qr_svg }) {
  const code = el("div", { class: "qr", role: "img", "aria-label": "The link as a QR code" });
  code.innerHTML = qr_svg;
  const until = new Date(expires_at).toLocaleString([], { weekday: "long", hour: "2-digit", minute: "2-digit", timeZoneName: "short" });
  const copied = el("span", { class: "small", role: "status" });
  const copy = async () => {
    await navigator.clipboard.writeText(link);
    copied.textContent = " Copied.";
  };
  return ask({
    title: `A phone for ${name}`,
    body: [
      el("p", {}, `${name} opens this link on the phone, or scans the code. It works once, until ${until}, and ends an earlier link. The new phone replaces the old one.`),
      code,
      el("p", {}, el("a", { href: link, class: "mono", id: "invitation" }, link)),
      el("div", { class: "actions" }, el("button", { type: "button", onclick: copy }, "Copy the link"), copied),
    ],
    close: "Close",
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
  const titles = ["Id", "MQTT password", "Token"].map((text) => el("th", { scope: "col" }, text));
  const text = ["driver_id,mqtt_password,token", ...secrets.map((one) => `${one.driver_id},${one.mqtt_password},${one.token}`)];
  const file = URL.createObjectURL(new Blob([`${text.join("\r\n")}\r\n`], { type: "text/csv" }));
  return ask({
    title: secrets.length === 1 ? `Secrets of ${secrets[0].driver_id}` : `Secrets of ${secrets.length} drivers`,
    body: [
      el("p", {}, "They are shown once. Only hashes of them are stored."),
      el("table", { tabindex: "0", "aria-label": "Secrets" }, el("thead", {}, el("tr", {}, ...titles)), el("tbody", {}, ...rows)),
      el("a", { href: file, download: "secrets.csv" }, "Download them as CSV"),
    ],
    ok,
    close: "Close",
  }).finally(() => URL.revokeObjectURL(file));
}
