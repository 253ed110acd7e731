/* The catalogue: a page of it, or what a search finds; stock changes as it happens. */

import { noteStock } from "./changes.js";
import { $, make, setText, throttled } from "./dom.js";
import { count, price, stock } from "./format.js";
import { get, Refused } from "./session.js";

const PAGE = 15;
const TYPING_PAUSE = 150;

const shown = new Map(); // product id -> the cells of its row
const changed = new Map(); // product id -> its newest state, until it is drawn
let offset = 0;
let query = "";
let asked = 0;

export function startCatalogue() {
  let pause = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(() => { query = $("search").value.trim(); offset = 0; load(); }, TYPING_PAUSE);
  });
  $("search-form").addEventListener("submit", (event) => { event.preventDefault(); load(); });
  $("previous").addEventListener("click", () => { offset = Math.max(0, offset - PAGE); load(); });
  $("next").addEventListener("click", () => { offset += PAGE; load(); });
}

/** Read the page that is looked at again. */
export async function load() {
  const number = ++asked;
  const parameters = new URLSearchParams({ limit: PAGE, offset });
  if (query) parameters.set("search", query);
  try {
    const answer = await get(`/v1/store/inventory?${parameters}`);
    if (number === asked) draw(answer);
  } catch (error) {
    if (number !== asked) return;
    if (error instanceof Refused) drawEmpty(error.message);
    setText($("catalogue-note"), error instanceof Refused ? "" : "Not up to date: the store does not answer.");
  }
}

/** A product has a new state; `null` if it is gone. Cheap: the page is drawn later. */
export function noteChange(productId, product) {
  if (!shown.has(productId)) return;
  changed.set(productId, product);
  drawChanges();
}

const drawChanges = throttled(200, () => {
  for (const [productId, product] of changed) {
    const row = shown.get(productId);
    if (!row) continue;
    fill(row, product);
    row.line.classList.remove("fresh");
    void row.line.offsetWidth; // so that the animation starts again
    row.line.classList.add("fresh");
  }
  changed.clear();
});

function draw({ products, pagination }) {
  const total = pagination.total;
  if (!products.length && offset > 0) { offset = 0; load(); return; }
  shown.clear();
  changed.clear();
  if (products.length) {
    $("products").replaceChildren(...products.map(row));
  } else {
    drawEmpty(query ? `Nothing in the catalogue matches “${query}”.` : "The catalogue is empty.");
  }
  setText($("catalogue-note"), query ? `${count(total)} found` : `${count(total)} products`);
  setText($("page-range"), products.length ? `${count(offset + 1)} to ${count(offset + products.length)} of ${count(total)}` : "");
  $("previous").disabled = offset === 0;
  $("next").disabled = offset + products.length >= total;
}

function drawEmpty(text) {
  shown.clear();
  $("products").replaceChildren(make("tr", {}, make("td", { colspan: 4, class: "empty" }, text)));
  setText($("page-range"), "");
  $("previous").disabled = $("next").disabled = true;
}

function row(product) {
  const link = make("a", { href: `#/product/${encodeURIComponent(product.productId)}` });
  const id = make("small", {}, product.productId);
  const cells = {
    link,
    stock: make("td", { class: "number" }),
    price: make("td", { class: "number" }),
    version: make("td", { class: "number" }),
  };
  cells.line = make("tr", {}, make("td", {}, link, id), cells.stock, cells.price, cells.version);
  shown.set(product.productId, cells);
  fill(cells, product);
  noteStock(product.productId, product.available);
  return cells.line;
}

function fill(cells, product) {
  if (product === null) {
    setText(cells.stock, "deleted");
    return;
  }
  setText(cells.link, String(product.name || product.productId));
  cells.stock.replaceChildren(count(product.available), ...expected(product));
  cells.stock.classList.toggle("none", product.available <= 0);
  setText(cells.price, price(product.price));
  setText(cells.version, count(product.version));
}

/** What the stock is once the outbox is empty; nothing unless sales of the product wait there. */
function expected(product) {
  if (product.expectedAvailable === undefined) return [];
  return [make("small", { class: product.expectedAvailable <= 0 ? "none" : "", title: "Expected with what waits in the outbox" },
    make("span", { class: "hidden" }, "expected "), `→ ${stock(product.expectedAvailable)}`)];
}
