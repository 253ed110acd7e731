/* The last full syncs, and a button that forces one. */

import { $, make, setText } from "./dom.js";
import { count, counted, dateAndTime } from "./format.js";
import { Refused, request } from "./session.js";

let drawn = "";
let isForced = false;

export function startSyncs(afterwards) {
  $("force").addEventListener("click", () => force(afterwards));
}

export function drawSyncs(status) {
  drawProgress(status);
  const next = JSON.stringify(status.fullSyncs);
  if (next === drawn) return;
  drawn = next;
  $("syncs").replaceChildren(...(status.fullSyncs.length ? status.fullSyncs.map(line) : [
    make("tr", {}, make("td", { colspan: 5, class: "empty" }, "None since the store started.")),
  ]));
}

function line(sync) {
  return make("tr", {},
    make("td", {}, dateAndTime(sync.began)),
    make("td", {}, sync.reasons.join(", ")),
    make("td", { class: "number" }, sync.duration),
    make("td", { class: "number" }, count(sync.products)),
    make("td", { class: sync.success ? "ok" : "failed" }, sync.success ? "in place" : sync.problem),
  );
}

function drawProgress(status) {
  const current = status.fullSync;
  const bar = $("force-progress");
  bar.hidden = !current?.step;
  if (!current?.step) {
    if (current?.wanted && !isForced) setText($("force-note"), `Due: ${current.wanted.join(", ")}.`);
    return;
  }
  if (status.productCount) {
    bar.max = Math.max(status.productCount, current.products);
    bar.value = current.products;
  } else {
    bar.removeAttribute("value");
  }
  setText($("force-note"), `Under way (${current.reasons.join(", ")}): ${counted(current.products, "product", "products")} read.`);
}

async function force(afterwards) {
  isForced = true;
  $("force").disabled = true;
  setText($("force-note"), "Asked for; Central is being read.");
  try {
    await request("/v1/store/sync/force", { method: "POST" });
    setText($("force-note"), "Done: the catalogue was read from Central again and is in place.");
  } catch (error) {
    setText($("force-note"), error instanceof Refused ? error.message : "The store does not answer; look at the list below once it does.");
  } finally {
    isForced = false;
    $("force").disabled = false;
    afterwards();
  }
}
