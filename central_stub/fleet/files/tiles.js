/* A tile for each store. Elements are kept and changed in place, so that nothing jumps, an open tile
 * stays open, and the focus stays where it is. Text always goes in as text: stores wrote it. */

const NEW_IN_A_FRAME = 50; // as many as a large window shows
let drawing = null;

const number = new Intl.NumberFormat("en-GB");

export function count(value) {
  return number.format(value);
}

/** A duration in seconds as a person says it: `4 s`, `4 min`, `3 h 20 min`, `2 days`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

/** Return an element with a class and a text, if any. */
export function make(tag, name = "", text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text) element.textContent = text;
  return element;
}

/** Set the text of an element, touching the page only if it differs. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setLevel(element, level) {
  if (element.dataset.level !== level) element.dataset.level = level;
}

/** Show these stores in the list, in this order. Many new ones come in several frames, so that none
 * takes long; the first of them as soon as possible. */
export function drawTiles(list, stores) {
  const held = new Map([...list.children].map((tile) => [tile.dataset.key, tile]));
  const wanted = new Set(stores.map(keyOf));
  for (const [key, tile] of held) if (!wanted.has(key)) tile.remove();
  if (!stores.length) list.append(make("li", "none", "No store is so."));
  let drawn = 0;
  let next = list.firstElementChild;
  const draw = () => {
    if (drawing !== draw) return; // there is a newer answer
    const focused = document.activeElement;
    for (let made = 0; drawn < stores.length && made < NEW_IN_A_FRAME; drawn += 1) {
      const store = stores[drawn];
      const key = keyOf(store);
      if (!held.has(key)) made += 1;
      const tile = held.get(key) ?? newTile(key);
      if (tile === next?.nextElementSibling) next = tile; // `next` comes later now: placed in its turn
      if (tile === next) next = tile.nextElementSibling;
      else list.insertBefore(tile, next);
      drawTile(tile, store);
    }
    if (focused !== document.activeElement && list.contains(focused)) focused.focus();
    if (drawn < stores.length) requestAnimationFrame(draw);
  };
  drawing = draw;
  draw();
}

function keyOf(store) {
  return `${store.storeId} ${store.process}`;
}

function newTile(key) {
  const tile = make("li", "tile");
  tile.dataset.key = key;
  const details = make("details");
  const summary = make("summary");
  summary.append(make("span", "id"), make("span", "state"), make("span", "why"));
  details.append(summary, make("dl"));
  details.addEventListener("toggle", () => { if (details.open) drawFacts(tile); });
  tile.append(details);
  return tile;
}

function drawTile(tile, store) {
  tile.store = store;
  setLevel(tile, store.level);
  const [id, state, why] = tile.firstChild.firstChild.children;
  setText(id, store.storeId);
  setText(state, `${store.state}, ${since(store)}`);
  setText(why, summaryOf(store));
  if (tile.firstChild.open) drawFacts(tile);
}

function since(store) {
  return store.state === "silent" ? duration(store.silentSeconds) : duration(store.stateSeconds);
}

function summaryOf(store) {
  if (store.state === "silent") return `was ${store.told}`;
  if (store.problem) return store.problem;
  if (store.outbox?.parked) return `${count(store.outbox.parked)} sales wait for a person`;
  if (store.refused && store.level !== "good") return `refused ${store.refused.what}`;
  return behind(store);
}

function behind(store) {
  if (store.lag === null) return "follows another feed";
  return store.lag ? `${count(store.lag)} events behind` : "at Central's head";
}

function drawFacts(tile) {
  const list = tile.querySelector("dl");
  factsOf(tile.store).forEach(([name, value], index) => {
    if (!list.children[2 * index]) list.append(make("dt"), make("dd"));
    setText(list.children[2 * index], name);
    setText(list.children[2 * index + 1], value);
  });
}

function factsOf(store) {
  const { outbox, lastFullSync, refused } = store;
  return [
    ["Last seen", `${duration(store.silentSeconds)} ago`],
    ["Behind", `${behind(store)} (event ${count(store.offset)})`],
    ["Age", store.ageSeconds === null ? "never in sync" : duration(store.ageSeconds)],
    ["Problem", store.problem || "none"],
    ["Outbox", outbox ? `${count(outbox.queued)} queued, ${count(outbox.inDoubt)} in doubt, ${count(outbox.parked)} parked` : "off"],
    ["Last full sync", lastFullSync
      ? `${duration(lastFullSync.secondsAgo)} ago, ${lastFullSync.success ? "succeeded" : lastFullSync.problem}: ${lastFullSync.reasons.join(", ")}`
      : "none since its start"],
    ["Last refused of Central", refused
      ? `${refused.what}${refused.offset === null ? "" : ` ${count(refused.offset)}`}, ${duration(refused.secondsAgo)} ago: ${refused.reason}`
      : "nothing since its start"],
    ["Program", `${store.version}, up for ${duration(store.uptimeSeconds)}, process ${store.process}`],
  ];
}
