// The administration page: drivers, restaurants, service areas and policies, for admins.
import { fetchAsStaff, getJson, showSignIn, startSession, Unauthorized } from "./api.js";
import { importFile, summary } from "./admin/csv.js";
import { Editor } from "./admin/editor.js";
import { ask, showInvitation, showSecrets } from "./admin/messages.js";
import { addressOf, keyOf, nameOf, RESOURCES } from "./admin/resources.js";
import { say, translatePage } from "./admin/texts.js";
import { showWebhookSecret } from "./admin/webhooks.js";
import { el } from "./elements.js";
import { failureText } from "./refusals.js";

const PAGE_ROWS = 1000;
const SHOWN_ROWS = 200;
const $ = (id) => document.getElementById(id);
const editor = new Editor(save);
let resource = RESOURCES[0];
let rows = [];
let shownCount = SHOWN_ROWS;
let loading = 0; // the answer of an earlier tab is dropped

const json = (method, body) => ({
  method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
});

function showTabs() {
  const zones = Intl.supportedValuesOf("timeZone");
  $("zones").replaceChildren(...zones.map((value) => el("option", { value })));
  const tabs = RESOURCES.map((one) =>
    el("button", { type: "button", role: "tab", id: `tab-${one.list}`, "aria-controls": "panel", onclick: () => choose(one) }, one.title),
  );
  $("tabs").replaceChildren(...tabs);
  $("tabs").addEventListener("keydown", ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!step) return;
    choose(RESOURCES[(RESOURCES.indexOf(resource) + step + RESOURCES.length) % RESOURCES.length]);
    $(`tab-${resource.list}`).focus();
  });
}

function choose(chosen) {
  resource = chosen;
  history.replaceState(null, "", `?tab=${resource.list}`);
  for (const one of RESOURCES) {
    const isChosen = one === resource;
    $(`tab-${one.list}`).setAttribute("aria-selected", String(isChosen));
    $(`tab-${one.list}`).tabIndex = isChosen ? 0 : -1;
  }
  $("panel").setAttribute("aria-labelledby", `tab-${resource.list}`);
  $("about").textContent = resource.about;
  $("add").textContent = resource.addText;
  $("export").href = `${resource.path}.csv`;
  for (const one of [$("export"), $("import"), $("retired").parentElement]) one.hidden = Boolean(resource.isPlain);
  $("filter").value = "";
  $("status").textContent = "";
  rows = [];
  load();
}

/** Read all rows, page by page, and show them as they arrive. */
async function load() {
  loading += 1;
  const mine = loading;
  const found = [];
  const query = resource.isPlain ? "" : `?limit=${PAGE_ROWS}${$("retired").checked ? "&retired=true" : ""}`;
  $("error").textContent = "";
  shownCount = SHOWN_ROWS;
  try {
    let cursor = "";
    do {
      const page = await getJson(`${resource.path}${query}${cursor}`);
      if (mine !== loading) return;
      found.push(...page[resource.list]);
      rows = found;
      show();
      cursor = page.next_cursor && `&cursor=${page.next_cursor}`;
    } while (cursor);
  } catch (error) {
    if (mine === loading) report(error);
  }
}

function show() {
  const wanted = $("filter").value.trim().toLowerCase();
  const texts = (row) => resource.columns.map(([, text]) => String(text(row)));
  const matching = rows.filter((row) => !wanted || texts(row).join(" ").toLowerCase().includes(wanted));
  const shown = matching.slice(0, shownCount);
  const titles = [...resource.columns.map(([title]) => title), say("Actions")];
  $("table").replaceChildren(
    el("caption", { class: "visually-hidden" }, resource.title),
    // With roles, because a narrow screen draws rows as cards, which ends those of the elements.
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...titles.map((title) => el("th", { scope: "col", role: "columnheader" }, title)))),
    el("tbody", { role: "rowgroup" }, ...shown.map((row) => rowElement(row, texts(row)))),
  );
  $("more").hidden = shown.length === matching.length;
  $("more").textContent = say("Show more ({} of {})", shown.length, matching.length);
  if (!matching.length) $("status").textContent = wanted ? say("None matches.") : resource.noneText;
}

function rowElement(row, texts) {
  const cells = texts.map((text, index) => {
    const [title, , isNumber] = resource.columns[index];
    return el("td", { role: "cell", class: isNumber ? "number" : undefined, "data-title": title }, text);
  });
  const driverId = resource.key === "driver_id" ? row.driver_id : undefined;
  const name = nameOf(resource, row);
  const run = (command, text) => act(`${addressOf(resource, row)}/${command}`, text);
  const buttons = row.retired_at
    ? [say("Retired")]
    : [
        el("button", { type: "button", "aria-label": say("Change {}", name), onclick: () => editor.open(resource, row) }, say("Change")),
        ...(resource.actionsOf?.(row, { run, invite, report, finish }) ?? []),
        ...(row.is_default || resource.isPlain ? [] : [retireButton(row, name)]),
      ];
  const actions = el("td", { class: "actions", role: "cell", "data-driver-id": driverId }, ...buttons);
  return el("tr", { role: "row", class: row.retired_at ? "retired" : undefined, "data-key": keyOf(resource, row) }, ...cells, actions);
}

function retireButton(row, name) {
  const retire = async () => {
    const isDone = await ask({
      title: say("Retire {}?", name),
      body: [el("p", {}, resource.about)],
      ok: say("Retire"),
      isDestructive: true,
      act: () => fetchAsStaff(`${addressOf(resource, row)}/retire`, { method: "POST" }),
    });
    if (isDone) finish(say("{} is retired.", name));
  };
  return el("button", { type: "button", "aria-label": say("Retire {}", name), onclick: retire }, say("Retire"));
}

async function act(path, text) {
  try {
    await fetchAsStaff(path, { method: "POST" });
    finish(text);
  } catch (error) {
    report(error);
  }
}

/** Send what the form has. Throws what the API refuses. */
async function save(of, row, values) {
  const path = row ? addressOf(of, row) : of.path;
  const answer = await (await fetchAsStaff(path, json(row ? "PATCH" : "POST", values))).json();
  const name = nameOf(of, answer);
  if (answer.replaces) finish(say("{} is policy {} now, in place of {}.", name, answer.policy_id, answer.replaces));
  else finish(row ? say("{} is changed.", name) : say("{} is added.", name));
  if (answer.secret) showWebhookSecret(answer);
  if (answer.mqtt_password) showSecrets([answer], say("Invite a phone")).then((isInvited) => isInvited && invite(answer));
}

async function invite(driver) {
  try {
    const answer = await fetchAsStaff(`/drivers/${driver.driver_id}/invitations`, { method: "POST" });
    showInvitation(driver.name, await answer.json());
  } catch (error) {
    report(error);
  }
}

async function finish(text) {
  const of = resource;
  await load();
  if (of === resource) $("status").textContent = text;
}

function report(error) {
  if (error instanceof Unauthorized) return showSignIn();
  $("error").textContent = error.problem ? failureText(error) : say("The server does not answer. Try again in a moment.");
}

$("add").addEventListener("click", () => editor.open(resource, null));
$("filter").addEventListener("input", () => {
  $("status").textContent = "";
  show();
});
$("retired").addEventListener("change", load);
$("more").addEventListener("click", () => {
  shownCount += SHOWN_ROWS;
  show();
});
$("import").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  target.value = "";
  const done = file && (await importFile(resource, file));
  if (done) finish(summary(done));
});

translatePage();
startSession(
  () => showTabs(),
  ({ role }) => {
    $("not-admin").hidden = role === "admin";
    $("panel").hidden = $("tabs").hidden = role !== "admin";
    const wanted = new URLSearchParams(location.search).get("tab");
    if (role === "admin") choose(RESOURCES.find(({ list }) => list === wanted) ?? resource);
  },
  report,
);
