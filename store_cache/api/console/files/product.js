/* One product's own page: its state, what the store saw happen to it, and its JSON. */

import { $, make, setText, throttled } from "./dom.js";
import { count, dateAndTime, price, signed, stock } from "./format.js";
import { get, Refused } from "./session.js";

let openId = null;

/** Show the product, or none if `productId` is null. */
export async function openProduct(productId) {
  openId = productId;
  const page = $("product");
  page.hidden = productId === null;
  if (productId === null) { page.replaceChildren(); return; }
  page.replaceChildren(make("p", { class: "card" }, "Asking the store …"));
  await draw(productId);
  $("main").focus();
  window.scrollTo(0, 0);
}

export function noteChange(productId) {
  if (productId === openId) redraw();
}

const redraw = throttled(300, () => { if (openId !== null) draw(openId); });

async function draw(productId) {
  const path = `/v1/store/inventory/${encodeURIComponent(productId)}`;
  let product = null;
  let problem = "";
  try {
    product = await get(path);
  } catch (error) {
    problem = error.message;
  }
  const history = await readHistory(path);
  if (productId !== openId) return;
  $("product").replaceChildren(
    product ? summary(productId, product) : missing(productId, problem),
    historyCard(history),
    ...(product ? [raw(product)] : []),
  );
}

async function readHistory(path) {
  try {
    return await get(`${path}/history?limit=50`);
  } catch (error) {
    return { problem: error instanceof Refused && error.status === 404 ? "Nothing is known of it." : error.message };
  }
}

function back() {
  return make("a", { href: "#/" }, "← Overview");
}

function missing(productId, problem) {
  return make("section", { class: "card" }, back(), make("h1", { id: "product-title" }, productId), make("p", {}, problem));
}

function summary(productId, product) {
  const facts = [
    ["Stock", make("span", { class: product.available <= 0 ? "none" : "" }, count(product.available))],
    ...waiting(product),
    ["Price", price(product.price)],
    ["Version", count(product.version)],
    ["Category", String(product.category ?? "–")],
    ["Changed", dateAndTime(product.lastUpdated)],
  ];
  return make("section", { class: "card" },
    back(),
    make("h1", { id: "product-title" }, String(product.name || productId)),
    make("p", { class: "note" }, productId),
    make("dl", { class: "facts" }, ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
  );
}

/** What the outbox makes of the stock; nothing unless sales of the product wait there. */
function waiting(product) {
  if (product.pendingDelta === undefined) return [];
  const link = make("a", { href: "#/outbox" }, `${signed(product.pendingDelta)} in the outbox`);
  const expected = make("span", { class: product.expectedAvailable <= 0 ? "none" : "" }, stock(product.expectedAvailable));
  const oversold = product.oversold ? [make("small", {}, "oversold: more was sold than Central knows of")] : [];
  return [["Not at Central yet", link], ["Expected stock", make("span", {}, expected, ...oversold)]];
}

function historyCard(history) {
  const card = make("section", { class: "card", "aria-labelledby": "history-title" },
    make("div", { class: "head" }, make("h2", { id: "history-title" }, "What the store saw"),
      make("p", { class: "note" }, history.problem ? "" : reach(history))));
  if (history.problem || !history.changes.length) {
    card.append(make("p", { class: "empty" }, history.problem || "No change since the store started."));
    return card;
  }
  const heads = [["When", ""], ["Stock", "number"], ["Change", "number"], ["Version", "number"], ["From", ""]];
  card.append(make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "History" },
    make("table", { class: "history" },
      make("thead", {}, make("tr", {}, ...heads.map(([name, kind]) => make("th", { scope: "col", class: kind }, name)))),
      make("tbody", {}, ...history.changes.map(historyLine)))));
  return card;
}

function reach(history) {
  return history.complete ? "Everything since the store started" : "Older changes are forgotten";
}

function historyLine(change) {
  const isKnown = change.delta !== null && change.delta !== undefined;
  return make("tr", {},
    make("td", {}, dateAndTime(change.at)),
    make("td", { class: "number" }, change.available === null || change.available === undefined ? "deleted" : count(change.available)),
    make("td", { class: "number" }, isKnown ? signed(change.delta) : "–"),
    make("td", { class: "number" }, count(change.version)),
    make("td", {}, change.idempotencyKey ? `${change.source} ${change.idempotencyKey}` : change.source),
  );
}

function raw(product) {
  const text = make("code");
  setText(text, JSON.stringify(product, null, 2));
  return make("section", { class: "card", "aria-labelledby": "raw-title" },
    make("div", { class: "head" }, make("h2", { id: "raw-title" }, "As a read gives it")),
    make("pre", { tabindex: 0 }, text));
}
