/* The live stream of the store: Server-Sent Events over fetch, because EventSource sends no key. */

import { key, Refused, request } from "./session.js";

const FIRST_RETRY = 1000;
const LONGEST_RETRY = 10_000;

/** Silence after which the line counts as lost. The store writes every 15 s at the latest. */
const SILENCE = 40_000;

/**
 * Follow the stream for ever, reconnecting. `on.event(name, data)` gets each event,
 * `on.line(state, problem)` tells "open" or "lost". A refused key ends it.
 */
export async function follow(on) {
  let lastId = "";
  let retry = FIRST_RETRY;
  let failures = 0;
  const usedKey = key();
  while (key() === usedKey) {
    try {
      const headers = lastId ? { "Last-Event-ID": lastId } : {};
      await read("/v1/store/inventory/stream", headers, (event) => {
        failures = 0;
        if (event.retry) retry = event.retry;
        if (event.id) lastId = event.id;
        if (event.name) on.event(event.name, event.data);
      }, () => on.line("open"));
      on.line("lost", new Error("The store ended the stream."));
    } catch (error) {
      if (error instanceof Refused && [401, 403, 404].includes(error.status)) {
        on.line("refused", error);
        return;
      }
      on.line("lost", error);
    }
    failures += 1;
    const wait = Math.min(retry * 2 ** Math.min(failures - 1, 4), LONGEST_RETRY);
    await new Promise((resolve) => setTimeout(resolve, wait * (0.75 + Math.random() / 2)));
  }
}

async function read(path, headers, onEvent, onOpen) {
  const abort = new AbortController();
  let silence = setTimeout(() => abort.abort(), SILENCE);
  try {
    const response = await request(path, { headers, signal: abort.signal });
    onOpen();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), SILENCE);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) onEvent(parse(block));
    }
  } finally {
    clearTimeout(silence);
    abort.abort();
  }
}

function parse(block) {
  const event = { name: "", data: null, id: "", retry: 0 };
  const data = [];
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const field = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event.name = value;
    else if (field === "data") data.push(value);
    else if (field === "id") event.id = value;
    else if (field === "retry") event.retry = Number(value);
  }
  if (data.length) event.data = JSON.parse(data.join("\n"));
  return event;
}
