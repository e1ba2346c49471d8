// Texts of the page's own panels, in one place: another language is another table of these names.

export const TEXT = {
  saved: (title) => `saved as ${title}`,
  savedHereOnly: "saved on the server; this browser has no room to keep it as well",
  unnamed: (when) => `walk of ${when}`,
  load: "Play on",
  export: "Export",
  remove: "Delete",
  removeSure: "Really delete?",
  noSaves: "Nothing is saved yet.  A session that is saved can be played on later, exported, and shared.",
  notASession: "this is not a session's file; drop a .reverie file, or a picture",
  noServer: "the session did not reach the server; is it still running?",
  gone: "this saved session is gone from the server and this browser",
  loading: "generating the session again",
  beforeFork: (when) => `before the fork of ${when}`,
  forked: (title) => `the other way is kept as ${title}`,
  sessionGone: "the session is no longer on the server; another one begins",
  at: (time, length) => `${time} of ${length}`,
  pressKey: "press a key",
  noSuchStart: "the link's start is not here; another one begins",
  linkCopied: "the link is copied: it opens this start with this seed",
  linkToCopy: "This link opens this start with this seed:",
  latencyParts: ({ waitMs, makeMs, networkMs, showMs }) =>
    `until the block began ${waitMs} ms, generating ${makeMs} ms, network ${networkMs} ms, until shown ${showMs} ms`,
};

/** Seconds as m:ss. */
export const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
