// What a customer can do: call, change the note, share, be notified, cancel. Loaded after the state.
import { el, fill } from "../elements.js";
import { LANGUAGE, LOCALE } from "./language.js";
import { ACTION_TEXTS } from "./action-texts.js";
import { isPushPossible, subscribe } from "./push.js";

const t = ACTION_TEXTS[LANGUAGE];
const FETCH_AGAIN_MS = 5_000;
const FINAL_STATES = ["delivered", "cancelled", "failed"];

export class Actions {
  #page = null;
  #seq = null; // of the event that #page was fetched for
  #isFetching = false;
  #link = null; // that was made to share: shown once
  #isNotified = false;
  #isAsked = false; // whether to cancel

  constructor(section, path, stream) {
    Object.assign(this, { section, path, stream });
  }

  /** Show what can be done now; what only the customer reads is fetched with each new event. */
  async update(track) {
    this.track = track;
    if (this.#isFetching) return; // an answer that an event has overtaken is not shown
    this.#isFetching = true;
    while (this.#seq !== this.track.order_seq) await this.#fetch(this.track.order_seq);
    this.#isFetching = false;
    this.#draw();
  }

  /** After a failure again: an ended order has no further event that would do it. */
  async #fetch(seq) {
    try {
      const response = await fetch(`${this.path}/page`, { signal: AbortSignal.timeout(10_000) });
      if (response.status === 429 || response.status >= 500) throw new Error(`${response.status}`);
      if (response.ok) this.#page = await response.json();
      this.#seq = seq;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, FETCH_AGAIN_MS));
    }
  }

  #draw() {
    if (!this.#page) return; // the link has ended
    const { track } = this;
    const signature = [track.state, track.pin, track.photo, this.#page, this.#link, this.#isNotified, this.#isAsked];
    this.section.hidden = false;
    fill(this.section, signature, () => this.#build(FINAL_STATES.includes(track.state)).filter(Boolean));
  }

  #build(isOver) {
    const { track } = this;
    const page = this.#page;
    const photo = track.photo && el("img", { id: "photo", src: `${this.path}/photo`, alt: t.photo });
    if (isOver) return [photo, page.has_retry && this.#retry(), el("p", { id: "outcome", role: "status", class: "small" })];
    return [
      track.pin && el("p", { id: "pin" }, `${t.pin} `, el("b", { class: "mono" }, track.pin)),
      page.address && el("p", { class: "small" }, page.address),
      this.#note(page),
      this.#buttons(page),
      this.#link && this.#shared(),
      this.#isAsked && this.#question(),
      el("p", { id: "outcome", role: "status", class: "small" }),
    ];
  }

  /** A failed order's customer follows the next attempt with a link of its own. */
  #retry() {
    const onclick = async () => {
      const answer = await this.#send("POST", "retry");
      if (answer) location.assign(answer.customer_link);
    };
    return el("p", { id: "next-attempt" }, `${t.hasRetry} `, el("button", { id: "follow-retry", type: "button", onclick }, t.followRetry));
  }

  #note({ may_change: mayChange, door_note: note }) {
    if (!mayChange) return note && el("p", { class: "small muted" }, `${t.note}: ${note}`);
    const field = el("textarea", { id: "door-note", rows: 2, maxlength: 2000 });
    field.value = note ?? "";
    const onsubmit = (event) => {
      event.preventDefault();
      this.#send("PUT", "door-note", { door_note: field.value.trim() || null }, t.noteSaved);
    };
    return el(
      "form",
      { id: "note-form", onsubmit },
      el("label", { for: "door-note" }, t.note),
      field,
      el("button", {}, t.save),
    );
  }

  #buttons(page) {
    const { contact_rule: rule, courier_phone: courier, restaurant_phone: restaurant } = page;
    const link = (scheme, number, label) => el("a", { class: "button", href: `${scheme}:${number.replace(/[^+\d]/g, "")}` }, label);
    const button = (id, label, onclick) => el("button", { id, type: "button", onclick }, label);
    const isShared = page.shared_at !== null;
    return el(
      "div",
      { class: "buttons" },
      courier && rule !== "text" ? link("tel", courier, t.callCourier) : null,
      courier && rule !== "call" ? link("sms", courier, t.textCourier) : null,
      restaurant ? link("tel", restaurant, t.callRestaurant) : null,
      isPushPossible(page) && !this.#isNotified ? button("notify", t.notify, () => this.#notify()) : null,
      button("share", t.share, () => this.#share()),
      isShared ? button("unshare", t.unshare, () => this.#unshare()) : null,
      page.may_change ? button("cancel", t.cancel, () => this.#ask(true)) : null,
    );
  }

  #shared() {
    return el(
      "p",
      { class: "small" },
      el("label", { for: "share-link" }, t.shareWhat),
      el("input", { id: "share-link", readonly: "", value: this.#link, onfocus: (event) => event.target.select() }),
    );
  }

  #question() {
    return el(
      "p",
      { id: "question", role: "alert" },
      `${t.reallyCancel} `,
      el("button", { id: "cancel-yes", type: "button", onclick: () => this.#cancel() }, t.yesCancel),
      " ",
      el("button", { type: "button", onclick: () => this.#ask(false) }, t.no),
    );
  }

  #ask(isAsked) {
    this.#isAsked = isAsked;
    this.#draw();
    this.section.querySelector(isAsked ? "#cancel-yes" : "#cancel")?.focus();
  }

  async #cancel() {
    this.#isAsked = false;
    if (await this.#send("POST", "cancel", undefined, t.cancelled)) this.stream.refresh();
  }

  async #share() {
    const answer = await this.#send("POST", "share");
    if (!answer) return;
    this.#link = answer.share_link;
    this.#draw();
    await navigator.share?.({ url: this.#link }).catch(() => {});
  }

  async #unshare() {
    this.#link = null;
    await this.#send("DELETE", "share", undefined, t.unshared);
  }

  async #notify() {
    try {
      const subscription = await subscribe(this.#page.push_key);
      const body = { ...subscription, language: LOCALE };
      this.#isNotified = Boolean(await this.#send("POST", "push", body, t.notified));
      this.#draw();
    } catch {
      this.#say(t.notNotified);
    }
  }

  /** Send a change, and read the page again. Returns the answer; null after a refusal. */
  async #send(method, what, body, done = "") {
    const json = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
    try {
      const response = await fetch(`${this.path}/${what}`, { method, ...json, signal: AbortSignal.timeout(10_000) });
      if (!response.ok) throw new Error(`${response.status}`);
      const answer = response.status === 204 ? {} : await response.json();
      this.#seq = null;
      await this.update(this.track);
      this.#say(done);
      return answer;
    } catch {
      this.#say(t.failed);
      return null;
    }
  }

  #say(sentence) {
    const line = this.section.querySelector("#outcome");
    if (line) line.textContent = sentence;
  }
}
