/* The fleet: counts by state, the worst stores as tiles, search by id. Asks Central every 5 s. */

import { count, drawTiles, duration, make, setLevel, setText } from "/fleet/tiles.js";

const KEPT_KEY = "central-admin-key";
const KEPT_TENANT = "central-tenant";
const PAUSE_SECONDS = 5;
const MOST_TILES = 200;
const TYPING_SECONDS = 0.2;
const ANSWER_SECONDS = 15;
const BAD = ["degraded", "silent", "fallback", "empty"];

const $ = (id) => document.getElementById(id);
const asked = { id: "", state: "" };
let answeredAt = NaN;
let isAsking = false;
let isAskedAnew = false;

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function start() {
  $("sign-in-form").addEventListener("submit", signIn);
  $("forget").addEventListener("click", () => { sessionStorage.clear(); location.reload(); });
  $("search-form").addEventListener("submit", (event) => event.preventDefault());
  let typing = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => { asked.id = $("search").value.trim(); load(); }, TYPING_SECONDS * 1000);
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && isIn()) load(); });
  setInterval(() => {
    if (isAsking && Date.now() - answeredAt > 2 * PAUSE_SECONDS * 1000) setLine("lost", lostText());
    if (!document.hidden && isIn()) load();
  }, PAUSE_SECONDS * 1000);
  $("forget").hidden = !isIn();
  if (isIn()) load();
  else askKey("");
}

function isIn() {
  return Boolean(sessionStorage.getItem(KEPT_KEY));
}

function askKey(problem) {
  $("sign-in").hidden = false;
  $("fleet").hidden = $("forget").hidden = true;
  setLine("none", "Not signed in");
  setText($("key-problem"), problem);
  $("key").focus();
}

function signIn(event) {
  event.preventDefault();
  sessionStorage.setItem(KEPT_KEY, $("key").value.trim());
  sessionStorage.setItem(KEPT_TENANT, $("tenant").value.trim());
  load();
}

/** Ask Central once more, and show what it says. One question is under way at a time. */
async function load() {
  if (isAsking) {
    isAskedAnew = true;
    return;
  }
  isAsking = true;
  try {
    show(await ask());
  } catch (problem) {
    if (!(problem instanceof Refused)) setLine("lost", lostText());
    else if ([401, 403].includes(problem.status)) {
      sessionStorage.clear();
      askKey(problem.message);
    } else setLine("lost", problem.message);
  } finally {
    isAsking = false;
    if (isAskedAnew) {
      isAskedAnew = false;
      load();
    }
  }
}

async function ask() {
  const query = new URLSearchParams({ limit: MOST_TILES });
  for (const [name, value] of Object.entries(asked)) if (value) query.set(name, value);
  const headers = keptHeaders();
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), ANSWER_SECONDS * 1000);
  try {
    const answer = await fetch(`/v1/admin/stores?${query}`, { headers, cache: "no-store", signal: patience.signal });
    if (answer.ok) return await answer.json();
    let said = {};
    try {
      said = await answer.json();
    } catch { /* a proxy's page */ }
    throw new Refused(answer.status, said.message ?? `Central answered ${answer.status}.`);
  } finally {
    clearTimeout(timer);
  }
}

/** The key and the tenant, as UTF-8: a header takes bytes, and Central reads them so. */
function keptHeaders() {
  const bytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));
  const headers = { "X-API-Key": bytes(sessionStorage.getItem(KEPT_KEY)) };
  const tenant = sessionStorage.getItem(KEPT_TENANT);
  if (tenant) headers["X-Tenant-ID"] = bytes(tenant);
  return headers;
}

function lostText() {
  const seconds = (Date.now() - answeredAt) / 1000;
  return Number.isFinite(seconds) ? `No answer for ${duration(seconds)}` : "Central does not answer";
}

function show(fleet) {
  answeredAt = Date.now();
  $("sign-in").hidden = true;
  $("fleet").hidden = $("forget").hidden = false;
  $("key").value = "";
  setText($("tenant-name"), sessionStorage.getItem(KEPT_TENANT) ?? "");
  setLine("open", "Asked every 5 s");
  drawVerdict(fleet);
  drawCounts(fleet.counts);
  drawTiles($("tiles"), fleet.stores);
  const { total } = fleet.pagination;
  const shown = fleet.stores.length;
  setText($("stores-note"), shown < total ? `${count(shown)} of ${count(total)}` : `${count(total)} in all`);
}

function drawVerdict({ counts, storeIds }) {
  const all = Object.values(counts).reduce((sum, one) => sum + one, 0);
  const bad = BAD.reduce((sum, state) => sum + counts[state], 0);
  const level = !all ? "waiting" : bad ? "bad" : counts.live < all ? "warn" : "good";
  const sentence = !all ? "No store has reported yet"
    : counts.live === all ? `All ${count(all)} are live`
    : `${count(counts.live)} of ${count(all)} are live`;
  setLevel($("verdict"), level);
  setText($("sentence"), sentence);
  const nodes = all > storeIds ? ` They have ${count(storeIds)} store ids: some shops have two nodes.` : "";
  setText($("advice"), adviceOf(counts, all, bad) + nodes);
  document.title = bad ? `(${count(bad)}) Fleet` : "Fleet";
  if ($("spoken").dataset.level !== level) {
    $("spoken").dataset.level = level; // said aloud when the level changes, not with every number
    setText($("spoken"), sentence);
  }
}

function adviceOf(counts, all, bad) {
  if (!all) return "Stores report within a minute of their start, unless FLEET_REPORT is false.";
  if (counts.silent) return `${count(counts.silent)} have not reported for over three minutes: their line, or they, are down.`;
  if (bad) return `${count(bad)} sell from what they hold: see why below.`;
  return counts.live < all ? "The others are on their way." : "Nothing to do.";
}

function drawCounts(counts) {
  const list = $("counts");
  Object.entries(counts).forEach(([state, number], index) => {
    let item = list.children[index];
    if (!item) {
      item = list.appendChild(make("li"));
      const button = item.appendChild(make("button"));
      button.type = "button";
      button.append(make("b"), make("span", "", state));
      button.addEventListener("click", () => {
        asked.state = asked.state === state ? "" : state;
        load();
      });
    }
    const button = item.firstChild;
    setText(button.firstChild, count(number));
    setLevel(button, !number ? "none" : BAD.includes(state) ? "bad" : state === "live" ? "good" : "warn");
    button.setAttribute("aria-pressed", String(asked.state === state));
  });
}

function setLine(state, text) {
  $("line").dataset.line = state;
  setText($("line"), text);
}

start();
