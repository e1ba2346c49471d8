// The WebSocket: connects, says hello, measures the round trip, and connects again when it is lost.

import { ProtocolError, decodeFrame, decodeText, hello, ping } from "./protocol.js";

const PING_MS = 1000;
const RETRY_MS = [400, 800, 1600, 3000, 5000];

/** Events: `message` (detail: a text message), `frame` (detail: a frame), `lost` (detail: {final, reason}). */
export class Connection extends EventTarget {
  #socket = null;
  #pings = null;
  #tries = 0;
  #fatal = null;

  roundTripMs = null;

  constructor(url) {
    super();
    this.url = url;
  }

  open() {
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#fatal = null;
    socket.onopen = () => {
      socket.send(hello());
      this.#ping();
      this.#pings = setInterval(() => this.#ping(), PING_MS);
    };
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = () => this.#closed();
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Send an encoded message; dropped if there is no connection. */
  send(message) {
    if (this.isOpen) this.#socket.send(message);
  }

  #ping() {
    this.send(ping(performance.now()));
  }

  #receive(data) {
    let message;
    try {
      if (typeof data !== "string") {
        this.dispatchEvent(new CustomEvent("frame", { detail: decodeFrame(data) }));
        return;
      }
      message = decodeText(data);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#fatal = `${error.message}; reload the page`;
      this.#socket.close();
      return;
    }
    if (message.type === "welcome") this.#tries = 0;
    if (message.type === "pong") this.roundTripMs = Math.max(0, performance.now() - message.time_ms);
    else if (message.type === "error" && message.fatal) this.#fatal = message.message;
    else this.dispatchEvent(new CustomEvent("message", { detail: message }));
  }

  #closed() {
    clearInterval(this.#pings);
    this.roundTripMs = null;
    const final = this.#fatal !== null;
    this.dispatchEvent(new CustomEvent("lost", { detail: { final, reason: this.#fatal } }));
    if (!final) setTimeout(() => this.open(), RETRY_MS[Math.min(this.#tries++, RETRY_MS.length - 1)]);
  }
}
