// Upload of a CSV: tried first without writing, then imported if it is confirmed.
import { fetchAsStaff } from "../api.js";
import { el } from "../elements.js";
import { complaintsOf, failureText } from "../refusals.js";
import { ask, showSecrets } from "./messages.js";
import { say } from "./texts.js";

const IMPORT_TIMEOUT_MS = 60_000;

/** Import a file. Resolves to what was done, or null if nothing was. */
export async function importFile(resource, file) {
  let plan;
  try {
    plan = await send(resource, file, true);
  } catch (error) {
    await ask({ title: say("Nothing was imported"), body: complaints(error), close: say("Close") });
    return null;
  }
  let done = null;
  const isEmpty = !plan.created.length && !plan.changed.length;
  await ask({
    title: say("Import {}", file.name),
    body: [el("p", {}, summary(plan))],
    ok: isEmpty ? undefined : say("Import"),
    act: async () => (done = await send(resource, file, false)),
  });
  if (done?.secrets.length) await showSecrets(done.secrets);
  return done;
}

async function send(resource, file, isDryRun) {
  const response = await fetchAsStaff(`${resource.path}/import${isDryRun ? "?dry_run=true" : ""}`, {
    method: "POST",
    headers: { "Content-Type": "text/csv" },
    body: file,
    signal: AbortSignal.timeout(IMPORT_TIMEOUT_MS),
  });
  return response.json();
}

export function summary({ created, changed, unchanged }) {
  return say("{} new, {} changed, {} as they are.", created.length, changed.length, unchanged);
}

function complaints(error) {
  const found = complaintsOf(error.problem ?? {});
  if (!found.length) return [el("p", {}, failureText(error))];
  return [el("ul", {}, ...found.map((text) => el("li", {}, text)))];
}
