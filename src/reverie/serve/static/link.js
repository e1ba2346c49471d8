// A link that opens a start with a seed: #start=ID&seed=NUMBER, and &model=ID where the server has several.

const MAX_SEED = 2 ** 31 - 1;
const MAX_MODEL_ID = 80;

/** What the page's address asks for, {start, seed, model}, each undefined where it is not said; null for a plain one. */
export function readLink() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (!asked.has("start")) return null;
  const seed = Number(asked.get("seed") ?? NaN);
  return {
    start: asked.get("start"),
    seed: Number.isSafeInteger(seed) && seed >= 0 && seed <= MAX_SEED ? seed : undefined,
    model: asked.get("model")?.slice(0, MAX_MODEL_ID) || undefined,
  };
}

/** Leaves the plain address: a reload goes on, and does not begin again. */
export function forgetLink() {
  history.replaceState(null, "", location.pathname + location.search);
}

/** The address that opens a start with a seed.  model: an id, empty where the server has one. */
export function linkTo({ start, seed, model }) {
  const address = new URL(location.href);
  address.hash = new URLSearchParams({ start: start ?? "", seed: String(seed), ...(model && { model }) }).toString();
  address.searchParams.delete("token");
  return address.href;
}
