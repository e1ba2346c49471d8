// The WebSocket: connects, says hello, measures the round trip, and connects again when it is lost.
//
// A connection can die without a word (sleep, a change of network), and a server can stall.  So each ping is expected to
// be followed by something, whatever it is, within a few seconds; else the connection is given up and made anew.

import { ProtocolError, decodeFrame, decodeText, hello, ping } from "./protocol.js";

const PING_MS = 1000;
const STALLED_MS = 3000; // without a sign of life for so long: `stalled`
const DEAD_MS = 8000; // and for so long: lost
const OPEN_MS = 10000; // to open a connection
const RETRY_MS = [400, 800, 1600, 3000, 5000];
const FULL_RETRY_MS = 5000;
const RETRIED = new Set(["full", "timeout"]); // refusals that time may mend

/**
 * Events: `message` (detail: a text message), `frame` (detail: a frame), `stalled` (detail: ms without a sign of life),
 * `lost` (detail: {final, reason, code}; unless final, it connects again by itself).
 */
export class Connection extends EventTarget {
  #socket = null;
  #timer = null;
  #tries = 0;
  #refusal = null; // the server's fatal error
  #askedMs = null; // when the oldest ping was sent that nothing has followed
  #checkedMs = 0;

  /** The model to play, by its id; null for the server's own choice. */
  model = null;
  roundTripMs = null;

  constructor(url) {
    super();
    this.url = url;
  }

  open() {
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#refusal = null;
    this.#askedMs = performance.now();
    this.#checkedMs = this.#askedMs;
    socket.onopen = () => {
      this.#askedMs = null;
      socket.send(hello(this.model));
      this.#ping();
    };
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = () => this.#closed();
    this.#timer = setInterval(() => this.#check(), PING_MS);
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Send an encoded message; dropped if there is no connection. */
  send(message) {
    if (this.isOpen) this.#socket.send(message);
  }

  /** Sends an image; returns the server's answer, `uploaded` or an error. */
  async upload(name, blob) {
    const asked = new URLSearchParams({ name, ...(this.model && { model: this.model }) });
    const response = await fetch(`upload?${asked}`, { method: "POST", body: blob });
    return response.json();
  }

  #ping() {
    const now = performance.now();
    this.#askedMs ??= now;
    this.send(ping(now));
  }

  /** Once a second, or once a minute in a hidden tab. */
  #check() {
    const now = performance.now();
    const slept = now - this.#checkedMs > 2.5 * PING_MS; // what came meanwhile may not have been handled yet
    this.#checkedMs = now;
    if (slept && this.#askedMs !== null) this.#askedMs = now;
    const silentMs = this.#askedMs === null ? 0 : now - this.#askedMs;
    if (silentMs > (this.isOpen ? DEAD_MS : OPEN_MS)) this.#giveUp();
    else if (this.isOpen) {
      if (silentMs > STALLED_MS) this.dispatchEvent(new CustomEvent("stalled", { detail: silentMs }));
      this.#ping();
    }
  }

  /** Leave a dead connection; the browser itself would wait a minute for the other side to agree. */
  #giveUp() {
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    this.#closed();
  }

  #receive(data) {
    this.#askedMs = null;
    let message;
    try {
      if (typeof data !== "string") {
        this.dispatchEvent(new CustomEvent("frame", { detail: decodeFrame(data) }));
        return;
      }
      message = decodeText(data);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#refusal = { code: "version", message: `${error.message}; reload the page` };
      this.#socket.close();
      return;
    }
    if (message.type === "welcome") this.#tries = 0;
    if (message.type === "pong") this.roundTripMs = Math.max(0, performance.now() - message.time_ms);
    else if (message.type === "error" && message.fatal) this.#refusal = message;
    else this.dispatchEvent(new CustomEvent("message", { detail: message }));
  }

  #closed() {
    clearInterval(this.#timer);
    this.roundTripMs = null;
    this.#socket = null;
    const refusal = this.#refusal;
    const final = refusal !== null && !RETRIED.has(refusal.code);
    this.dispatchEvent(new CustomEvent("lost", { detail: { final, reason: refusal?.message ?? null, code: refusal?.code ?? null } }));
    if (final) return;
    const waitMs = refusal?.code === "full" ? FULL_RETRY_MS : RETRY_MS[Math.min(this.#tries++, RETRY_MS.length - 1)];
    setTimeout(() => this.#openAgain(), waitMs);
  }

  /** A server that was restarted may not know this page any more: only its new link helps then, and trying does not. */
  async #openAgain() {
    try {
      const answer = await fetch("health", { cache: "no-store", signal: AbortSignal.timeout(OPEN_MS) });
      if (answer.status === 403) {
        const { message } = await answer.json();
        this.dispatchEvent(new CustomEvent("lost", { detail: { final: true, reason: message } }));
        return;
      }
    } catch {
      // not there yet: the WebSocket will find out as well
    }
    this.open();
  }
}
