// Small things that the browser remembers: for this tab (sessionStorage) or for good (localStorage).
// Where it has no storage, as in private windows, they last for the visit.

/** Keep a text under a name; null forgets it. */
export function remember(name, value, where = "sessionStorage") {
  try {
    if (value === null || value === undefined) window[where].removeItem(name);
    else window[where].setItem(name, value);
  } catch {
    // it lasts for the visit
  }
}

/** The text that was kept, or null. */
export function remembered(name, where = "sessionStorage") {
  try {
    return window[where].getItem(name);
  } catch {
    return null;
  }
}
