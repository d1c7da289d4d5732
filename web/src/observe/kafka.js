// Kafka's topics, groups and messages, as tables. Read only.
import { getJson } from "../api.js";
import { el } from "../elements.js";
import { locale, say } from "./texts.js";

let open = null; // { topic, partition }, whose messages are shown
let reads = 0; // the answer of one that a later one overtook is dropped

/** Read Kafka again and show it. */
export async function showKafka(box) {
  const read = (reads += 1);
  const { topics, groups } = await getJson("/observe/kafka");
  const messages = open && (await readMessages());
  if (read !== reads) return;
  box.replaceChildren(topicTable(topics, box), groupTable(groups), ...(messages ? [messageTable(messages)] : []));
}

async function readMessages() {
  const path = `/observe/kafka/topics/${encodeURIComponent(open.topic)}/messages`;
  return (await getJson(`${path}?partition=${open.partition}&count=20`)).messages;
}

function topicTable(topics, box) {
  const rows = topics.map(({ name, is_readable, partitions }) => {
    const kept = sum(partitions.map(({ low, high }) => high - low));
    const behind = partitions.filter(({ replicas, in_sync }) => in_sync < replicas).length;
    return [
      name,
      partitions.length,
      kept.toLocaleString(locale),
      sum(partitions.map(({ high }) => high)).toLocaleString(locale),
      behind ? say("{} behind", behind) : say("in sync"),
      is_readable ? selector(name, partitions, box) : el("span", { class: "muted" }, say("not shown")),
    ];
  });
  return table(
    say("Topics"),
    [say("Topic"), say("Partitions"), say("Records kept"), say("Written in all"), say("Replicas"), say("Messages")],
    rows,
  );
}

function selector(topic, partitions, box) {
  const options = partitions.map(({ partition, low, high }) =>
    el("option", { value: partition }, say("partition {} ({})", partition, high - low)),
  );
  const select = el(
    "select",
    {
      "aria-label": say("Messages of {}", topic),
      onchange: ({ target }) => {
        open = target.value === "" ? null : { topic, partition: Number(target.value) };
        showKafka(box).catch(() => {}); // the next refresh leaves or explains
      },
    },
    el("option", { value: "" }, say("choose")),
    ...options,
  );
  select.value = open?.topic === topic ? String(open.partition) : "";
  return select;
}

function groupTable(groups) {
  const rows = groups.map(({ name, state, members, offsets }) => [
    name,
    state.toLowerCase(),
    members,
    offsets.length ? sum(offsets.map(({ lag }) => lag)).toLocaleString(locale) : say("kept in the database: see Path of a fix"),
  ]);
  return table(say("Consumer groups"), [say("Group"), say("State"), say("Members"), say("Lag")], rows);
}

function messageTable(messages) {
  const rows = messages.map(({ offset, at, key, value, size_bytes, headers }) => [
    offset,
    at ? new Date(at).toLocaleString(locale) : "–",
    key,
    el("code", {}, value),
    size_bytes,
    Object.entries(headers).map(([name, text]) => `${name}: ${text}`).join(", "),
  ]);
  const title = say("Newest messages of {}, partition {}", open.topic, open.partition);
  return table(title, [say("Offset"), say("Time"), say("Key"), say("Value"), say("Bytes"), say("Headers")], rows);
}

function table(title, names, rows) {
  const cell = (content) => {
    const kind = typeof content === "number" ? "number" : content?.tagName === "CODE" ? "value" : null;
    return el("td", { class: kind }, typeof content === "number" ? String(content) : content);
  };
  return el(
    "article",
    { class: "topic" },
    el("h2", {}, title),
    el(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": title },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, ...(rows.length ? rows : [[say("none")]]).map((row) => el("tr", {}, ...row.map(cell)))),
      ),
    ),
  );
}

const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);
