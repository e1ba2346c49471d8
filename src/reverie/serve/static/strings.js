// What the page says besides its buttons' names (index.html) and its keys (controls.js): another language is another
// table of these names.

export const TEXT = {
  connecting: "Connecting",
  warming: "Waking up",
  opening: "Opening",
  paused: "Paused",
  pause: "Pause",
  goOn: "Go on",
  goOnByTouch: "tap to go on",
  goOnByKey: "click, or press P, to go on",
  full: "All places are taken",
  place: (place, waiting) =>
    `${place === 1 ? "you are next" : `you are number ${place} of ${waiting} in the queue`}; it begins by itself`,
  notOpened: "This did not open",
  brokeOff: "The world broke off",
  refused: "The server says no",
  lost: "the connection is lost; waiting for the server",
  silent: (seconds) => `the server has not answered for ${seconds} s`,
  empty: "Give it a picture",
  emptyHint: "it has none of its own: drop one here, or press +",
  kinds: { dream: "dreamt live", game: "the real game" },
  latency: "from an input to the first frame on the screen that obeys it",
  yourPicture: "your picture",
  startIn: (name) => `start in ${name}`,
  forget: (name) => `forget ${name}`,
  noUploads: "this world starts where it wants; pictures cannot be uploaded to it",
  pictureRefused: "the picture was refused",
  pictureLost: "the picture did not reach the server; is it still running?",
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
