/* The console: asks for a key, then shows the store's state, fed by the live stream. */

import * as catalogue from "./catalogue.js";
import * as changes from "./changes.js";
import { startCharts } from "./charts.js";
import { $, setText } from "./dom.js";
import { seconds } from "./format.js";
import { noteWrite, openOutbox, startOutbox } from "./outbox.js";
import { openProduct, noteChange as noteProductChange } from "./product.js";
import { forgetKey, keepKey, key, Refused, request } from "./session.js";
import { follow } from "./stream.js";
import { drawSyncs, startSyncs } from "./syncs.js";
import { drawTrust } from "./trust.js";
import { drawVerification, startVerification } from "./verification.js";

const BUSY_SECONDS = 3; // how often the status is read while changes come
const QUIET_SECONDS = 15;

const view = { status: null, statusAt: NaN, ageAt: NaN, isReached: true, lostAt: NaN };
let readAt = 0;
let isReading = false;
let isEntering = false; // or inside: every part of the page is started once

async function start() {
  $("sign-in-form").addEventListener("submit", signIn);
  $("forget").addEventListener("click", () => { forgetKey(); location.hash = "#/"; location.reload(); });
  window.addEventListener("hashchange", route);
  if (key()) await enter(); else askKey("");
}

function askKey(problem) {
  $("sign-in").hidden = false;
  $("overview").hidden = $("product").hidden = $("outbox").hidden = $("forget").hidden = true;
  setLine("none", "Not signed in");
  setText($("key-problem"), problem);
  $("key").focus();
}

async function signIn(event) {
  event.preventDefault();
  if (isEntering) return; // the form was sent twice
  keepKey($("key").value.trim());
  await enter();
}

async function enter() {
  isEntering = true;
  const problem = await readStatus();
  if (problem instanceof Refused && [401, 403, 429].includes(problem.status)) {
    isEntering = false;
    forgetKey();
    askKey(problem.message);
    return;
  }
  $("sign-in").hidden = true;
  $("forget").hidden = false;
  $("key").value = "";
  catalogue.startCatalogue();
  changes.startChanges();
  startSyncs(readStatus);
  startVerification(readStatus);
  startOutbox();
  route();
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", tick);
  startCharts();
  catalogue.load();
  showVersion();
  await follow({ event: onEvent, line: onLine });
}

// -- the live stream -------------------------------------------------------------------------

function onEvent(name, data) {
  if (name === "product") onChange(data.productId, data);
  else if (name === "deleted") onChange(data.productId, null);
  else if (name === "write") noteWrite();
  else if (name === "reset") { catalogue.load(); readStatus(); }
  else if (name === "position") noteAge(data.age);
  else if (name === "state") { noteAge(data.age); readStatus(); }
}

function onChange(productId, product) {
  changes.noteChange(productId, product);
  catalogue.noteChange(productId, product);
  noteProductChange(productId);
  if (now() - readAt > BUSY_SECONDS) readStatus();
}

function onLine(state, problem) {
  if (state === "open") {
    if (Number.isFinite(view.lostAt)) catalogue.load();
    view.lostAt = NaN;
    setReached(true);
    setLine("open", "Page updates live");
    readStatus();
  } else if (state === "lost") {
    setLine("lost", "Page reconnecting …");
    readStatus();
  } else if (problem.status === 404) {
    setLine("none", "Page updates every 15 s");
  } else {
    forgetKey();
    location.reload();
  }
}

function setLine(state, text) {
  $("line").dataset.line = state;
  setText($("line"), text);
}

// -- the status ------------------------------------------------------------------------------

/** Read the status; return the problem if there was one. */
async function readStatus() {
  if (isReading) return null;
  isReading = true;
  readAt = now();
  try {
    const response = await request("/v1/store/sync/status");
    view.status = await response.json();
    view.statusAt = now();
    const answered = seconds(response.headers.get("Date"));
    noteAge(Math.max(0, answered - seconds(view.status.lastSyncTime)));
    setReached(true);
    drawSyncs(view.status);
    drawVerification(view.status.verification);
    setText($("store-name"), view.status.storeId ?? "");
    noteWrite();
    return null;
  } catch (problem) {
    if (!(problem instanceof Refused)) setReached(false);
    return problem;
  } finally {
    isReading = false;
    draw();
  }
}

/** Note how many seconds ago the catalogue equalled Central's; null: nobody knows. */
function noteAge(age) {
  view.ageAt = age === null ? NaN : now() - age;
}

function setReached(isReached) {
  if (!isReached && view.isReached) view.lostAt = now();
  view.isReached = isReached;
}

function tick() {
  const isLive = view.isReached && view.status?.state.name === "live";
  const pause = view.status?.fullSync ? 1 : isLive ? QUIET_SECONDS : BUSY_SECONDS;
  if (now() - readAt > pause && !document.hidden) readStatus();
  draw();
}

function draw() {
  if (!view.status && view.isReached) return;
  drawTrust({
    status: view.status,
    age: now() - view.ageAt,
    statusAge: document.hidden ? 0 : now() - view.statusAt, // hidden, it is not read all the time
    now: now(),
    isReached: view.isReached,
    lostSeconds: now() - view.lostAt,
  });
}

function now() {
  return Date.now() / 1000;
}

// -- pages -----------------------------------------------------------------------------------

function route() {
  if (!key()) return;
  const product = /^#\/product\/(.+)$/.exec(location.hash);
  const isOutbox = location.hash === "#/outbox";
  $("overview").hidden = product !== null || isOutbox;
  openOutbox(isOutbox);
  openProduct(product ? decoded(product[1]) : null);
}

/** Return the text without its percent-encoding; as it is if that is none, as in `50%`. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function showVersion() {
  try {
    const health = await (await fetch("/health")).json();
    setText($("version"), `store-cache ${health.version}`);
  } catch { /* the trust panel says that the store does not answer */ }
}

start();
