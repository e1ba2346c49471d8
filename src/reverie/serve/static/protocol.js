// What the page and the server say to each other: the same as serve/protocol.py, which describes it.

export const VERSION = 1;
export const HEADER_BYTES = 40;
export const KIND_FRAME = 1;
export const FORMAT = Object.freeze({ JPEG: 1, RGB: 2 });
export const FLAG = Object.freeze({ FIRST: 1, BLOCK: 2 });

export class ProtocolError extends Error {}

/** Read a binary frame message (an ArrayBuffer).  Throws ProtocolError for what is not one. */
export function decodeFrame(buffer) {
  if (buffer.byteLength < HEADER_BYTES) {
    throw new ProtocolError(`a frame has at least ${HEADER_BYTES} bytes, got ${buffer.byteLength}`);
  }
  const view = new DataView(buffer);
  const version = view.getUint8(0);
  const kind = view.getUint8(1);
  if (version !== VERSION || kind !== KIND_FRAME) {
    throw new ProtocolError(`expected version ${VERSION} kind ${KIND_FRAME}, got version ${version} kind ${kind}`);
  }
  const format = view.getUint8(2);
  if (!Object.values(FORMAT).includes(format)) throw new ProtocolError(`unknown frame format ${format}`);
  const size = view.getUint32(20, true);
  if (buffer.byteLength - HEADER_BYTES !== size) {
    throw new ProtocolError(`the header promises ${size} payload bytes, got ${buffer.byteLength - HEADER_BYTES}`);
  }
  return {
    format,
    flags: view.getUint8(3),
    epoch: view.getUint32(4, true),
    index: view.getUint32(8, true),
    action: view.getUint32(12, true),
    width: view.getUint16(16, true),
    height: view.getUint16(18, true),
    sampledMs: view.getFloat64(24, true),
    sentMs: view.getFloat64(32, true),
    payload: new Uint8Array(buffer, HEADER_BYTES),
  };
}

/** Read a text message of the server: an object with a `type`. */
export function decodeText(text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    throw new ProtocolError("the server sent a text message that is not JSON");
  }
  if (typeof message?.type !== "string") throw new ProtocolError("the server sent a message without a type");
  return message;
}

const text = (type, fields) => JSON.stringify({ type, ...fields });
const known = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));

export const hello = (model = null) => text("hello", { version: VERSION, format: "jpeg", ...known({ model }) });
export const start = (id, seed, passes = null) => text("start", { start: id, seed, ...known({ passes }) });
export const restart = (seed, passes = null) => text("restart", { seed, ...known({ passes }) });
export const resume = (session) => text("resume", { session });
export const load = (save) => text("load", { save });
export const seek = (frame) => text("seek", { frame });
export const view = (name, epoch, index) => text("view", { view: name, epoch, index });
export const save = (name, whole = false) => text("save", { name, whole });
export const pause = (paused) => text("pause", { paused });
export const input = (seq, codes, mouse) => text("input", { seq, codes, mouse });
export const played = (epoch, index, roundTripMs) =>
  text("played", { epoch, index, round_trip_ms: roundTripMs ?? null });
export const rate = (fps) => text("rate", { fps });
export const map = () => text("map", {});
export const ping = (timeMs) => text("ping", { time_ms: timeMs });
