/* What comparing with Central has found, and a button that compares now. */

import { $, make, setText } from "./dom.js";
import { counted, dateAndTime } from "./format.js";
import { get, Refused } from "./session.js";

const SHOWN = 20;

let drawn = "";

export function startVerification(afterwards) {
  $("verify").addEventListener("click", () => compare(afterwards));
}

export function drawVerification(verification) {
  $("verify").hidden = verification.state === "off";
  const products = [...verification.disputed.map((one) => ({ ...one, isDisputed: true })), ...verification.recent];
  const next = JSON.stringify(products);
  if (next === drawn) return;
  drawn = next;
  $("differences").hidden = !products.length;
  $("differing").replaceChildren(...products.slice(0, SHOWN).map(line));
}

function line(one) {
  const what = one.isDisputed
    ? "Central contradicts itself about it; it is left alone"
    : one.fields.map((name) => `${name}: ${shown(one.before, name)} → ${shown(one.after, name)}`).join(", ");
  return make("tr", {},
    make("td", {}, dateAndTime(one.at)),
    make("td", {}, make("a", { href: `#/product/${encodeURIComponent(one.productId)}` }, one.productId)),
    make("td", {}, what),
  );
}

function shown(product, name) {
  if (product === null) return "no product";
  return product[name] === undefined ? "nothing" : JSON.stringify(product[name]);
}

async function compare(afterwards) {
  $("verify").disabled = true;
  setText($("verify-note"), "Comparing …");
  try {
    const found = await get("/v1/store/sync/verify", { method: "POST" });
    setText($("verify-note"), outcome(found));
  } catch (error) {
    setText($("verify-note"), error instanceof Refused ? error.message : "The store does not answer.");
  } finally {
    $("verify").disabled = false;
    afterwards();
  }
}

function outcome(found) {
  if (found.problem) return `Could not compare: ${found.problem}`;
  if (found.state === "equal") return "Every product equals Central's.";
  return `${counted(found.mismatches, "product has", "products have")} differed since the start; ${found.repaired} repaired.`;
}
