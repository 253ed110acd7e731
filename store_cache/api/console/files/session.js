/* The key of this tab, and calls of the store's API with it. */

const KEPT_AS = "store-cache-key";

export function key() {
  return sessionStorage.getItem(KEPT_AS) ?? "";
}

export function keepKey(value) {
  sessionStorage.setItem(KEPT_AS, value);
}

export function forgetKey() {
  sessionStorage.removeItem(KEPT_AS);
}

/** An answer that is an error. `message` is the store's own, for a person. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The store could not be reached at all. */
export class Unreachable extends Error {}

/** Call the API and return the response. Raises Refused and Unreachable. */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, {
      ...options,
      cache: "no-store",
      headers: { "X-API-Key": key(), ...options.headers },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The store does not answer.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** Call the API and return the JSON of its answer. Raises Refused and Unreachable. */
export async function get(path, options) {
  const response = await request(path, options);
  try {
    return await response.json();
  } catch {
    throw new Unreachable("The store's answer was cut off.");
  }
}

async function refusal(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch { /* not an answer of the store's API: a proxy's page */ }
  return new Refused(response.status, error.message ?? `The store answered ${response.status}.`);
}
