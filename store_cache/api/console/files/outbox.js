/* The page of the outbox: the sales that wait for Central, and those on which a person decides. */

import { $, make, setText, throttled } from "./dom.js";
import { count, counted, dateAndTime, duration, NOTHING, seconds, signed, stock } from "./format.js";
import { get, Refused, request } from "./session.js";

const PAGE = 25;
const WAITING = ""; // the state that is asked for if none is chosen: whatever has no outcome yet

const STATE_NAMES = {
  queued: "queued",
  sending: "on its way",
  in_doubt: "in doubt",
  parked: "parked",
  applied: "applied",
  discarded: "discarded",
};

/** Why an entry is parked of which an attempt may have been applied. */
const DOUBTFUL = new Set(["forgotten", "central_replaced", "idempotency_key_taken"]);

/** What a person can do: the call, its body beside the reason, and what is said of it. */
const RETRY = { name: "Send it again", path: "/retry", body: {} };
const DISCARD = { name: "Discard it", method: "DELETE", path: "", body: {} };
const APPLIED = { name: "It was applied", path: "/settle", body: { outcome: "applied" } };
const NOT_APPLIED = { name: "It was not: discard it", path: "/settle", body: { outcome: "not_applied" } };
const RETRY_DOUBTFUL = { name: "It was not: send it again", path: "/retry", body: { outcome: "not_applied" } };

let isOpen = false;
let starts = [""]; // the id before each page that was turned to; the last one is shown
let asked = 0;
let deciding = null; // the entry that the dialog is about
let isSending = false;

export function startOutbox() {
  $("outbox-state").addEventListener("change", () => { starts = [""]; load(); });
  $("outbox-previous").addEventListener("click", () => { starts.pop(); load(); });
  $("decision-form").addEventListener("submit", decide);
  $("decision-cancel").addEventListener("click", () => $("decision").close());
  $("decision").addEventListener("close", () => { if (isOpen) focusOn(`decide-${deciding.outboxId}`); });
}

/** Show the page, or hide it. */
export async function openOutbox(isWanted) {
  isOpen = isWanted;
  $("outbox").hidden = !isWanted;
  if (!isWanted) { $("decision").close(); return; }
  starts = [""];
  await load();
  $("main").focus();
  window.scrollTo(0, 0);
}

/** An entry may have changed, or is older now. Cheap: the page is read later. */
export const noteWrite = throttled(300, () => { if (isOpen) load(); });

/** Return the sentence of the first page: what waits, and for how long. */
export function waitingText(outbox) {
  const parts = [];
  const waiting = outbox.queued + outbox.sending;
  if (waiting) parts.push(counted(waiting, "sale waits for Central", "sales wait for Central"));
  if (outbox.inDoubt) parts.push(counted(outbox.inDoubt, "sale is in doubt", "sales are in doubt"));
  if (outbox.parked) parts.push(counted(outbox.parked, "sale needs a person", "sales need a person"));
  if (!parts.length) return "No sale waits for Central.";
  return `${parts.join(", ")}; the oldest is from ${duration(outbox.oldestSeconds)} ago.`;
}

// -- the list --------------------------------------------------------------------------------

async function load() {
  const number = ++asked;
  const state = $("outbox-state").value;
  const after = starts.at(-1);
  const parameters = new URLSearchParams({ limit: PAGE + 1 });
  if (state !== WAITING) parameters.set("state", state);
  if (after) parameters.set("after", after);
  try {
    const answer = await get(`/v1/store/outbox?${parameters}`);
    const products = await productsOf(answer.entries);
    if (number === asked) draw(answer, products, state);
  } catch (error) {
    if (number !== asked) return;
    const isAbsent = error instanceof Refused && error.status === 404;
    drawEmpty(isAbsent ? "This store has no outbox: OFFLINE_WRITES is refuse." : error.message);
  }
}

async function productsOf(entries) {
  const productIds = [...new Set(entries.map((entry) => entry.productId))];
  if (!productIds.length) return new Map();
  const found = await get("/v1/store/inventory/lookup", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ productIds }),
  });
  return new Map(found.products.map((product) => [product.productId, product]));
}

function draw({ entries, counts }, products, state) {
  if (!entries.length && starts.length > 1) { starts.pop(); load(); return; }
  const isMore = entries.length > PAGE;
  const shown = entries.slice(0, PAGE);
  setText($("outbox-counts"), countsText(counts));
  if (!shown.length) {
    drawEmpty(state === WAITING ? "Nothing waits: every sale has reached Central." : "There is none.");
    return;
  }
  keepingFocus(() => $("entries").replaceChildren(
    ...shown.map((entry) => line(entry, products.get(entry.productId))),
  ));
  $("outbox-previous").disabled = starts.length === 1;
  $("outbox-next").disabled = !isMore;
  $("outbox-next").onclick = () => { starts.push(shown.at(-1).outboxId); load(); };
}

function countsText({ queued, sending, inDoubt, parked }) {
  const all = [[queued, "queued"], [sending, "on the way"], [inDoubt, "in doubt"], [parked, "parked"]];
  const some = all.filter(([value]) => value).map(([value, name]) => `${count(value)} ${name}`);
  return some.length ? `Now: ${some.join(", ")}.` : "Nothing waits now.";
}

/** Do what replaces the list, and give the focus back to the same link or button. */
function keepingFocus(replace) {
  const held = document.activeElement?.dataset.focus;
  replace();
  if (held) focusOn(held);
}

function focusOn(name) {
  ($("entries").querySelector(`[data-focus="${name}"]`) ?? $("main")).focus({ preventScroll: true });
}

function drawEmpty(text) {
  keepingFocus(() => $("entries").replaceChildren(
    make("tr", {}, make("td", { colspan: 5, class: "empty" }, text)),
  ));
  $("outbox-previous").disabled = starts.length === 1;
  $("outbox-next").disabled = true;
}

function line(entry, product) {
  const link = make("a", {
    href: `#/product/${encodeURIComponent(entry.productId)}`,
    "data-focus": `product-${entry.outboxId}`,
  }, String(product?.name || entry.productId));
  return make("tr", {},
    make("td", { "data-name": "Sale" }, link, make("small", {}, `${entry.productId}, ${entry.idempotencyKey}`)),
    make("td", { class: "number", "data-name": "Change" }, signed(entry.delta)),
    make("td", { class: "number", "data-name": "Expected stock" }, ...expected(product)),
    make("td", { "data-name": "Queued" }, age(entry), make("small", {}, dateAndTime(entry.queuedAt))),
    make("td", { "data-name": "State" }, ...stateOf(entry)),
  );
}

function expected(product) {
  if (!product) return [NOTHING];
  const value = product.expectedAvailable ?? product.available;
  return [
    make("span", { class: value < 0 ? "none" : "" }, stock(value)),
    make("small", {}, `Central has ${count(product.available)}`),
  ];
}

function age(entry) {
  return `${duration(Date.now() / 1000 - seconds(entry.queuedAt))} ago`;
}

function stateOf(entry) {
  const parts = [make("span", { class: `state ${entry.state}` }, STATE_NAMES[entry.state] ?? entry.state)];
  if (entry.errorType) parts.push(make("span", { class: "error-type" }, ` ${entry.errorType}`));
  if (isForPerson(entry) && entry.problem) parts.push(make("small", { class: "words" }, entry.problem));
  for (const step of entry.steps) {
    parts.push(make("small", { class: "words" }, `${step.action} by ${step.by}, ${dateAndTime(step.at)}: “${step.reason}”`));
  }
  if (actionsOf(entry).length) {
    const button = make("button", {
      class: "quiet",
      type: "button",
      "aria-label": `Decide on ${entry.idempotencyKey}`,
      "data-focus": `decide-${entry.outboxId}`,
    }, "Decide …");
    button.addEventListener("click", () => ask(entry));
    parts.push(button);
  }
  return parts;
}

// -- what a person decides -------------------------------------------------------------------

/** Whether what is said of the entry is of use to a person; of a queued one it is for its till. */
function isForPerson(entry) {
  return entry.state === "parked" || entry.state === "in_doubt";
}

function actionsOf(entry) {
  const isDoubtful = entry.state === "in_doubt" || (entry.state === "parked" && DOUBTFUL.has(entry.errorType));
  if (isDoubtful) return [APPLIED, RETRY_DOUBTFUL, NOT_APPLIED];
  if (entry.state === "parked") return [RETRY, DISCARD];
  return entry.state === "queued" ? [DISCARD] : [];
}

function ask(entry) {
  deciding = entry;
  setText($("decision-sale"), `${entry.productId} ${signed(entry.delta)}, ${STATE_NAMES[entry.state]}. ${isForPerson(entry) ? entry.problem : ""}`);
  setText($("decision-problem"), "");
  $("decision-reason").value = "";
  $("decision-actions").replaceChildren(...actionsOf(entry).map((action, index) =>
    make("button", { type: "submit", value: index, class: index ? "quiet" : "" }, action.name)));
  $("decision").showModal();
  $("decision-reason").focus();
}

async function decide(event) {
  event.preventDefault();
  if (isSending) return; // the form was sent twice
  const reason = $("decision-reason").value.trim();
  if (!reason) { setText($("decision-problem"), "Say why: it is logged and kept with the sale."); return; }
  const { method = "POST", path, body } = actionsOf(deciding)[Number(event.submitter?.value ?? 0)];
  setSending(true);
  try {
    await request(`/v1/store/outbox/${encodeURIComponent(deciding.outboxId)}${path}`, {
      method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...body, reason }),
    });
    $("decision").close();
  } catch (error) {
    setText($("decision-problem"), error instanceof Refused ? error.message
      : "The store does not answer; look at the list once it does.");
  } finally {
    setSending(false);
    load();
  }
}

function setSending(isNow) {
  isSending = isNow;
  for (const button of $("decision-actions").children) button.disabled = isNow;
}
