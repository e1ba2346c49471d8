// A link that opens a start with a seed: #start=ID&seed=NUMBER.

const MAX_SEED = 2 ** 31 - 1;

/** What the page's address asks for, {start, seed}, each undefined where it is not said; null for a plain address. */
export function readLink() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (!asked.has("start")) return null;
  const seed = Number(asked.get("seed") ?? NaN);
  return { start: asked.get("start"), seed: Number.isSafeInteger(seed) && seed >= 0 && seed <= MAX_SEED ? seed : undefined };
}

/** Leaves the plain address: a reload goes on, and does not begin again. */
export function forgetLink() {
  history.replaceState(null, "", location.pathname + location.search);
}

/** The address that opens a start with a seed. */
export function linkTo({ start, seed }) {
  const address = new URL(location.href);
  address.hash = new URLSearchParams({ start: start ?? "", seed: String(seed) }).toString();
  address.searchParams.delete("token");
  return address.href;
}
