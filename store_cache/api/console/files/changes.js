/* The latest changes, newest first. Only what is looked at is kept. */

import { $, make, setText, throttled } from "./dom.js";
import { count, signed, timeOfDay } from "./format.js";

const SHOWN = 60;
const REMEMBERED_STOCKS = 5000;

const waiting = []; // newest last; at most SHOWN
const stockOf = new Map(); // product id -> stock last seen, for the difference
let isPaused = false;
let missed = 0;

export function startChanges() {
  $("pause").addEventListener("click", () => {
    isPaused = !isPaused;
    $("pause").setAttribute("aria-pressed", String(isPaused));
    setText($("pause"), isPaused ? "Go on" : "Pause");
    if (!isPaused) { missed = 0; draw(); }
    drawNote();
  });
}

/** Remember the stock of a product that was read, so that its next change shows the difference. */
export function noteStock(productId, available) {
  stockOf.delete(productId);
  stockOf.set(productId, available);
  if (stockOf.size > REMEMBERED_STOCKS) stockOf.delete(stockOf.keys().next().value);
}

/** A product has a new state; `product` is null if it is gone. */
export function noteChange(productId, product) {
  const before = stockOf.get(productId);
  if (product) noteStock(productId, product.available); else stockOf.delete(productId);
  waiting.push({ productId, product, before, at: Date.now() });
  if (waiting.length > SHOWN) waiting.shift();
  if (isPaused) { missed += 1; drawNote(); } else draw();
}

const draw = throttled(250, () => {
  if (isPaused || !waiting.length) return;
  const list = $("changes");
  list.prepend(...waiting.splice(0).reverse().map(line));
  while (list.children.length > SHOWN) list.lastElementChild.remove();
});

const drawNote = throttled(250, () => {
  setText($("changes-note"), isPaused
    ? `Paused; ${count(missed)} came meanwhile, the latest ${SHOWN} are kept.`
    : "Every change appears here as readers see it.");
});

function line({ productId, product, before, at }) {
  const name = product?.name || productId;
  const difference = product && before !== undefined ? product.available - before : 0;
  return make("li", {},
    make("time", { datetime: new Date(at).toISOString() }, timeOfDay(at)),
    make("a", { href: `#/product/${encodeURIComponent(productId)}`, title: productId }, String(name)),
    make("span", { class: "stock" }, ...(product
      ? [difference ? make("span", { class: difference > 0 ? "up" : "down" }, `${signed(difference)}  `) : "", count(product.available)]
      : ["deleted"])),
  );
}
