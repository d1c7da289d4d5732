// Kafka's consumer groups, topics, partitions and messages, as tables. Read only.
import { ApiProblem, getJson } from "../api.js";
import { el, fill } from "../elements.js";
import { locale, say } from "./texts.js";

let open = null; // { topic, partition }, whose messages are shown
let reads = 0; // the answer of one that a later one overtook is dropped
let readAt = null;
const OPEN_AT_FIRST = "driver-pos";
const tables = new Map(); // kept by key: scrolling, and which are open, outlive a refresh
const selector = el("select", { "aria-label": say("Messages of") });
const away = el("p", { class: "away", role: "alert" });

/** Read Kafka again and show it. While it does not answer, the last tables stay. */
export async function showKafka(box) {
  const read = (reads += 1);
  try {
    const answer = await getJson("/observe/kafka");
    const messages = open ? await readMessages() : [];
    if (read !== reads) return;
    readAt = new Date();
    draw(box, [
      ...notes(answer),
      groupTable(answer),
      topicTable(answer.topics),
      ...answer.topics.map((topic) => partitionTable(topic, answer.groups)),
      messageTable(answer.topics, messages, box),
    ]);
  } catch (error) {
    if (!(error instanceof ApiProblem) || error.problem.type !== "/problems/kafka-unavailable") throw error;
    if (read === reads) showAway(box);
  }
}

function showAway(box) {
  const text = say("Kafka does not answer: ./run status and its log say why.");
  away.textContent = readAt ? `${text} ${say("The tables are of {}.", readAt.toLocaleTimeString(locale))}` : text;
  draw(box, [away, ...[...box.children].filter((one) => one !== away)]);
}

/** Elements that are there already are not inserted again: that would lose their scrolling. */
function draw(box, parts) {
  const same = parts.length === box.children.length && parts.every((one, index) => one === box.children[index]);
  if (!same) box.replaceChildren(...parts);
}

async function readMessages() {
  const path = `/observe/kafka/topics/${encodeURIComponent(open.topic)}/messages`;
  return (await getJson(`${path}?partition=${open.partition}&count=20`)).messages;
}

function notes({ topics_left_out, groups_left_out }) {
  const texts = [
    topics_left_out ? say("{} more topics are not shown.", topics_left_out) : null,
    groups_left_out ? say("{} more groups are not shown.", groups_left_out) : null,
  ];
  return texts.filter(Boolean).map((text) => el("p", { class: "muted small" }, text));
}

/** One row per group and topic. */
function groupTable({ groups, nodes }) {
  const rows = groups.flatMap(({ name, state, members, kept_in, offsets }) => {
    const topics = [...new Set(offsets.map(({ topic }) => topic))];
    return (topics.length ? topics : [null]).map((topic) => {
      const own = offsets.filter((one) => one.topic === topic);
      const most = own.reduce((worst, one) => (one.lag > (worst?.lag ?? 0) ? one : worst), null);
      return [
        name,
        topic ?? "–",
        own.length ? total(own.map(({ lag }) => lag)) : "–",
        most ? say("partition {} ({})", most.partition, most.lag.toLocaleString(locale)) : "–",
        kept_in === "database" ? say("in the database") : say("in Kafka"),
        state.toLowerCase().replaceAll("_", " "),
        members,
      ];
    });
  });
  return table(
    "groups",
    say("Lag of the consumer groups"),
    [say("Group"), say("Topic"), say("Lag"), say("Most behind"), say("Offsets are"), say("State"), say("Members")],
    rows,
    say("Nodes of Kafka that answer: {}", nodes.join(", ")),
  );
}

function topicTable(topics) {
  const rows = topics.map(({ name, partitions }) => {
    const behind = partitions.filter(({ replicas, in_sync }) => in_sync < replicas).length;
    return [
      name,
      partitions.length,
      total(partitions.map(kept)),
      total(partitions.map(({ high }) => high)),
      behind ? say("{} behind", behind) : say("in sync"),
    ];
  });
  return table(
    "topics",
    say("Topics"),
    [say("Topic"), say("Partitions"), say("Records kept"), say("Written in all"), say("Replicas")],
    rows,
  );
}

/** A topic's partitions, with what each of its groups has committed. */
function partitionTable({ name, partitions }, groups) {
  const readers = groups
    .map((group) => ({ name: group.name, offsets: group.offsets.filter(({ topic }) => topic === name) }))
    .filter(({ offsets }) => offsets.length);
  const rows = partitions.map(({ partition, leader, replicas, in_sync, out_of_sync, low, high }) => [
    partition,
    leader < 0 ? say("none") : leader,
    out_of_sync.length ? say("{} of {}, without {}", in_sync, replicas, out_of_sync.join(", ")) : say("{} of {}", in_sync, replicas),
    low ?? "?",
    high ?? "?",
    ...readers.flatMap(({ offsets }) => {
      const own = offsets.find((one) => one.partition === partition);
      return own ? [own.committed ?? say("nothing yet"), own.lag ?? "?"] : ["–", "–"];
    }),
  ]);
  const names = [
    say("Partition"),
    say("Leader"),
    say("Replicas in sync"),
    say("First offset"),
    say("End offset"),
    ...readers.flatMap((one) => [say("{} committed", one.name), say("{} lag", one.name)]),
  ];
  return table(`partitions ${name}`, say("Partitions of {}", name), names, rows, null, name);
}

/** The newest messages of a partition, of a topic that may be read. */
function messageTable(topics, messages, box) {
  const readable = topics.filter(({ is_readable }) => is_readable);
  fill(selector, readable.map(({ name, partitions }) => [name, partitions.length]), () => [
    el("option", { value: "" }, say("choose")),
    ...readable.flatMap(({ name, partitions }) =>
      partitions.map(({ partition }) =>
        el("option", { value: `${name}/${partition}` }, say("{}, partition {}", name, partition)),
      ),
    ),
  ]);
  selector.value = open ? `${open.topic}/${open.partition}` : "";
  selector.onchange = ({ target }) => {
    const [topic, partition] = target.value.split("/");
    open = partition === undefined ? null : { topic, partition: Number(partition) };
    showKafka(box).catch(() => {}); // the next refresh leaves or explains
  };
  const rows = messages.map(({ offset, at, key, value, size_bytes, headers }) => [
    offset,
    at ? new Date(at).toLocaleString(locale) : "–",
    key,
    el("code", {}, value),
    size_bytes,
    Object.entries(headers).map(([name, text]) => `${name}: ${text}`).join(", "),
  ]);
  const names = [say("Offset"), say("Time"), say("Key"), say("Value"), say("Bytes"), say("Headers")];
  const note = say("Topics with positions are not shown.");
  const article = table("messages", say("Newest messages"), names, rows, note);
  if (!article.contains(selector)) article.querySelector("h2").after(selector);
  return article;
}

/** A table that can be scrolled; with `topic` it opens and closes. */
function table(key, title, names, rows, note = null, topic = null) {
  if (!tables.has(key)) tables.set(key, makeTable(topic));
  const { article, heading, noteLine, scroll, head, body } = tables.get(key);
  heading.textContent = title;
  noteLine.textContent = note ?? "";
  noteLine.hidden = !note;
  scroll.setAttribute("aria-label", title);
  head.replaceChildren(el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name))));
  body.replaceChildren(...(rows.length ? rows : [[say("none")]]).map((row) => el("tr", {}, ...row.map(cell))));
  return article;
}

function makeTable(topic) {
  const heading = el("h2", {});
  const noteLine = el("p", { class: "muted small" });
  const head = el("thead", {});
  const body = el("tbody", {});
  const scroll = el("div", { class: "scroll", tabindex: "0", role: "group" }, el("table", {}, head, body));
  const parts = [noteLine, scroll];
  const article =
    topic === null
      ? el("article", { class: "topic" }, heading, ...parts)
      : el("details", { class: "topic", open: topic === OPEN_AT_FIRST ? "" : null }, el("summary", {}, heading), ...parts);
  return { article, heading, noteLine, scroll, head, body };
}

const DIGITS = /^\d[\d.,\s]*$/;

function cell(content) {
  const isNumber = typeof content === "number" || (typeof content === "string" && DIGITS.test(content));
  const kind = isNumber ? "number" : content?.tagName === "CODE" ? "value" : null;
  return el("td", { class: kind }, typeof content === "number" ? String(content) : content);
}

const kept = ({ low, high }) => (low === null || high === null ? null : high - low);

/** A sum of numbers, of which some may be unknown. */
function total(numbers) {
  const text = numbers.reduce((all, one) => all + (one ?? 0), 0).toLocaleString(locale);
  return numbers.includes(null) ? say("at least {}", text) : text;
}
