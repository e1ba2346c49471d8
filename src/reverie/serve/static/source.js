// Where worlds come from: the server of this page.  An exported page has a local source in this module's place.

import { Connection } from "./connection.js";

/**
 * A source: `open()`, `isOpen`, `send(message)`, `roundTripMs`, `upload(name, blob)` and the events of a Connection,
 * all in the words of protocol.js.
 */
export function openSource() {
  const address = new URL("ws", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return new Connection(address);
}
