/* Whether the shop can trust its stock: one sentence, one level, and what to do next.
 *
 * `judge` decides from the status alone, so that a test can ask it. Levels: good, warn, bad.
 */

import { $, make, setLevel, setText } from "./dom.js";
import { count, counted, duration, seconds, timeOfDay } from "./format.js";
import { waitingText } from "./outbox.js";

/** After so many seconds a status says nothing of the present. It is read every 15 s at least. */
const OLDEST_STATUS = 60;

const NOTHING_TO_DO = "Nothing to do.";
const RETURNS_BY_ITSELF = "The store goes on by itself when Central answers again; nothing to do here. "
  + "If it lasts, check the shop's line and Central.";

/**
 * Return `{level, sentence, advice}`.
 *
 * `status` is the answer of /v1/store/sync/status, which was read `statusAge` seconds ago, `age` the
 * seconds since the catalogue was last known to equal Central's (NaN: unknown), `now` unix seconds,
 * `isReached` whether the store answers this page.
 */
export function judge({ status, age, now, isReached, statusAge = 0, lostSeconds = 0 }) {
  if (!isReached) {
    return {
      level: "bad",
      sentence: `The store has not answered for ${duration(lostSeconds)}`,
      advice: "It may be restarting; this page tries again by itself. If it stays so, look at the "
        + "service's log on the store's machine.",
    };
  }
  if (statusAge > OLDEST_STATUS) {
    return {
      level: "warn",
      sentence: `This is what the store said ${duration(statusAge)} ago`,
      advice: "It answers, but its status could not be read since. This page tries again by itself; if it "
        + "stays so, reload it.",
    };
  }
  const state = status.state.name;
  const away = awayFor(status, age, now);
  const sales = salesNow(status);
  switch (state) {
    case "live":
      return liveSentence(status, age);
    case "syncing":
      return {
        level: status.productCount ? "warn" : "bad",
        sentence: status.productCount
          ? "Reading the whole catalogue from Central again"
          : "Reading the catalogue from Central for the first time",
        advice: `${counted(status.fullSync?.products ?? 0, "product", "products")} so far. `
          + (status.productCount ? `Reads answer from before meanwhile; ${sales}.` : "Reads are answered once it ends."),
      };
    case "empty":
      return {
        level: "bad",
        sentence: "There is no catalogue yet",
        advice: because(status.errorMessage) + "Reads are refused until a first full sync has succeeded. "
          + "Check CENTRAL_API_URL, CENTRAL_API_KEY and the line to Central.",
      };
    case "cached":
      return {
        level: "warn",
        sentence: "Showing the catalogue from before the restart",
        advice: because(status.errorMessage) + `Central has not been heard since; ${sales}.`,
      };
    case "degraded":
      return {
        level: "bad",
        sentence: "The disk fails: what is shown is in memory only",
        advice: because(status.disk.problem) + "Free space or replace the disk before the store is restarted: "
          + "a restart now would lose what came since.",
      };
    case "fallback":
      return {
        level: "bad",
        sentence: `${awayText(away)}. Reads go on, ${sales}.`,
        advice: because(status.breaker.cause || status.errorMessage) + RETURNS_BY_ITSELF,
      };
    default:
      return {
        level: away > 60 ? "bad" : "warn",
        sentence: `${awayText(away)}. Reads go on, ${sales}.`,
        advice: because(status.errorMessage) + RETURNS_BY_ITSELF,
      };
  }
}

function liveSentence(status, age) {
  if (areRefused(status.writes) && areQueued(status)) {
    return {
      level: "warn",
      sentence: "In sync with Central, but sales are queued",
      advice: because(status.outbox.waitsFor) + "Central's feed answers and its writes do not. "
        + "What is queued is sent by itself; if it lasts, ask the people who run Central.",
    };
  }
  if (status.outbox?.problem) {
    return {
      level: "warn",
      sentence: "In sync with Central, but queued sales need a person",
      advice: because(status.outbox.problem) + "See the outbox.",
    };
  }
  if (areRefused(status.writes)) {
    return {
      level: "warn",
      sentence: "In sync with Central, but sales are refused",
      advice: because(status.writes.problem) + "Central's feed answers and its writes do not. "
        + "The store tries a sale now and then; ask the people who run Central.",
    };
  }
  if (status.writes.breaker !== "closed") {
    return {
      level: "good",
      sentence: inSyncText(age),
      advice: "Sales were refused; the next one is tried, and if Central takes it all go on.",
    };
  }
  if (status.writes.problem) {
    return {
      level: "warn",
      sentence: "In sync with Central, but some sales have no known outcome",
      advice: because(status.writes.problem) + "Repeat each at its till with the same key: it is never sold twice.",
    };
  }
  return { level: "good", sentence: inSyncText(age), advice: repairsAdvice(status.verification) };
}

function inSyncText(age) {
  return Number.isFinite(age) ? `In sync with Central, ${duration(age)} ago` : "In sync with Central";
}

function repairsAdvice(verification) {
  if (verification.state === "differs") {
    return "Some products differ from Central's and were not repaired: see the comparison below.";
  }
  if (verification.state === "not comparable") {
    return "About some products Central says two things: see the comparison below, and ask the people who run Central.";
  }
  return NOTHING_TO_DO;
}

function awayFor(status, age, now) {
  const since = seconds(status.breaker.since);
  return Number.isNaN(since) ? age : Math.max(0, now - since);
}

function areRefused(writes) {
  return writes.breaker === "open" && writes.retryInSeconds > 0;
}

function awayText(away) {
  return Number.isFinite(away) ? `Central has been away for ${duration(away)}` : "Central is away";
}

/** Whether a sale that cannot reach Central is queued. */
function areQueued(status) {
  return status.outbox?.accepting ?? false;
}

function salesNow(status) {
  if (status.writes.breaker === "open" && areQueued(status)) return "sales are queued";
  return status.writes.breaker === "open" ? "sales are refused" : "sales are tried";
}

function because(problem) {
  if (!problem) return "";
  const sentence = problem.charAt(0).toUpperCase() + problem.slice(1);
  return /[.!?]$/.test(sentence) ? `${sentence} ` : `${sentence}. `;
}

/** Return what the sentence rests on: `[name, value, detail, level]` each. */
export function facts({ status, age }) {
  const { writes, disk, breaker, feed } = status;
  const last = status.fullSyncs[0];
  return [
    ["State", status.state.name, `since ${timeOfDay(status.state.since)}`],
    ["Age", Number.isFinite(age) ? duration(age) : "unknown", "since it last equalled Central", age > 30 ? "warn" : ""],
    ["Feed", breaker.state === "open" ? "fallback" : breaker.cause ? "failing" : "followed",
      `event ${count(status.eventSync.lastEventOffset)}, ${lag(status.lag)}${from(feed)}`,
      breaker.state === "open" ? "bad"
        : breaker.cause || status.lag > 1000 || feed?.source === "central" ? "warn" : ""],
    ["Sales", areRefused(writes) ? (areQueued(status) ? "queued" : "refused") : writes.breaker === "closed" ? "forwarded" : "tried again",
      writes.unknown ? `${count(writes.unknown)} of unknown outcome` : `${count(writes.underWay)} under way`,
      areRefused(writes) && !areQueued(status) ? "bad" : writes.unknown || writes.breaker !== "closed" ? "warn" : ""],
    ["Disk", disk.durable ? "durable" : "failing",
      disk.durable ? `${disk.snapshotSize} and ${disk.journalSize} of changes` : disk.problem, disk.durable ? "" : "bad"],
    ["Products", count(status.productCount), status.generation ?? ""],
    comparedFact(status.verification),
    ["Last full sync", last ? timeOfDay(last.began) : "none", last ? `${last.success ? "succeeded" : "failed"}, ${last.reasons.join(", ")}` : "",
      last && !last.success ? "warn" : ""],
  ];
}

function lag(events) {
  return events ? `${counted(events, "event", "events")} behind` : "at Central's head";
}

/** Return where events come from, if that is not Central alone (FEED_SOURCE=nats). */
function from(feed) {
  if (!feed) return "";
  if (feed.source === "nats") return `, from NATS at ${feed.server}`;
  return `, from Central instead of NATS${feed.problem ? `: ${feed.problem}` : ""}`;
}

function comparedFact(verification) {
  const when = verification.lastEqual ? `equal at ${timeOfDay(verification.lastEqual)}` : "not yet found equal";
  const found = verification.mismatches
    ? `${counted(verification.mismatches, "product", "products")} differed, ${count(verification.repaired)} repaired` : when;
  const level = verification.state === "differs" ? "bad" : verification.state === "not comparable" ? "warn" : "";
  return ["Compared with Central", verification.state, verification.state === "off" ? "VERIFY_INTERVAL_MINUTES is 0" : found, level];
}

/** Draw the verdict and its facts; elements are kept, so that nothing jumps. */
export function drawTrust(view) {
  const verdict = judge(view);
  const spoken = `${verdict.level}:${view.status?.state.name}:${view.isReached}`;
  if ($("trust-spoken").dataset.spoken !== spoken) {
    // Said aloud once per change: the sentence itself changes every second.
    $("trust-spoken").dataset.spoken = spoken;
    setText($("trust-spoken"), verdict.sentence);
  }
  setLevel($("trust"), verdict.level);
  setText($("trust-sentence"), verdict.sentence);
  setText($("trust-advice"), verdict.advice);
  document.title = verdict.level === "good" ? "Store cache" : `(!) ${verdict.sentence}`;
  if (!view.status) return;
  $("outbox-note").hidden = !view.status.outbox;
  if (view.status.outbox) setText($("outbox-text"), waitingText(view.status.outbox));
  const list = $("facts");
  facts(view).forEach(([name, value, detail, level = ""], index) => {
    const cell = list.children[index] ?? list.appendChild(
      make("div", {}, make("dt"), make("dd", {}, make("span"), make("small"))),
    );
    const [term, shown] = cell.children;
    setText(term, name);
    setText(shown.children[0], value);
    setText(shown.children[1], detail);
    setLevel(shown, level);
  });
}
