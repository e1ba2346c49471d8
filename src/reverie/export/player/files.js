// Images and scenes, read into what sessions take.

import { Body } from "./body.js";
import { EgoMotion } from "./ego-motion.js";
import { fetchBytes, unpacked } from "./networks.js";
import { VIEW, focalLengths } from "./projection.js";
import { probe } from "./selection.js";

const BACKDROP = "rgb(96 96 96)"; // behind the transparent parts of an image
const MIN_SIDE_PX = 16;
const AS_STORED = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
const [LEVELS_PER_E, ONE_METRE] = [30, 76]; // of depth, as in vision/depth_codec.py

/** RGB bytes of an image, its centre cropped to the shape of {width, height}.  Throws an Error with one line. */
export async function readImage(source, { width, height }) {
  const blob = source instanceof Blob ? source : new Blob([await fetchBytes(new URL(source, self.location))]);
  const image = await createImageBitmap(blob, AS_STORED).catch(() => {
    throw new Error("this image cannot be read here; give a PNG, a JPEG or a WebP");
  });
  if (Math.min(image.width, image.height) < MIN_SIDE_PX) {
    throw new Error(`an image has at least ${MIN_SIDE_PX} pixels a side, got ${image.width}x${image.height}`);
  }
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = BACKDROP;
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  const scale = Math.max(width / image.width, height / image.height);
  const [w, h] = [image.width * scale, image.height * scale];
  context.drawImage(image, (width - w) / 2, (height - h) / 2, w, h);
  image.close();
  return rgb(context, width, height);
}

/** An ego-motion network {columns, width} whose weights lie in `folder`; null for none. */
export async function readEgoMotion(described, folder) {
  if (!described) return null;
  return new EgoMotion(described, await unpacked(await fetchBytes(new URL("ego-motion.bin.gz", folder))));
}

/** A scene {fovDeg, pixelAspect, keyframes, egoMotion, walls, ways, body} from its folder.  size: {width, height} of its colours. */
export async function readScene(folder, { width, height }) {
  const head = JSON.parse(new TextDecoder().decode(await fetchBytes(new URL("scene.json", folder))));
  const [colours, packed] = await Promise.all(
    ["colour.bin", "geometry.bin.gz"].map((name) => fetchBytes(new URL(name, folder))),
  );
  const geometry = await unpacked(packed);
  const focal = focalLengths(head.fov_deg, head.pixel_aspect);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const n = VIEW.h * VIEW.w;
  const keyframes = [];
  for (const [i, pose] of head.poses.entries()) {
    await drawStored(context, colours, head.offsets, i);
    const levels = geometry.subarray(2 * n * i, 2 * n * i + n);
    const depth = Float32Array.from(levels, (level) => Math.exp((level - ONE_METRE) / LEVELS_PER_E));
    const hidden = geometry.subarray(2 * n * i + n, 2 * n * (i + 1));
    const keyframe = { colour: rgb(context, width, height), depth, hidden, pose, preference: 1 };
    keyframes.push({ ...keyframe, ...probe(keyframe, focal) });
  }
  const egoMotion = await readEgoMotion(head.ego_motion, folder);
  const { fov_deg: fovDeg, pixel_aspect: pixelAspect, walls, ways } = head;
  const body = await readBody(head.body, folder, { width, height });
  return { fovDeg, pixelAspect, keyframes, egoMotion, walls, ways, body };
}

/** The player's body as it was recorded in a scene; null for none.  size: of frames. */
async function readBody(described, folder, size) {
  if (!described) return null;
  const bytes = await fetchBytes(new URL("body.bin", folder));
  const { width, height } = described.box;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const images = [];
  for (let i = 0; i + 1 < described.offsets.length; i++) {
    context.clearRect(0, 0, width, height);
    await drawStored(context, bytes, described.offsets, i);
    images.push(context.getImageData(0, 0, width, height).data);
  }
  return new Body(described, images, size);
}

/** Draws image number i of WebP files one after another. */
async function drawStored(context, bytes, offsets, i) {
  const blob = new Blob([bytes.subarray(offsets[i], offsets[i + 1])], { type: "image/webp" });
  const image = await createImageBitmap(blob, AS_STORED);
  context.drawImage(image, 0, 0);
  image.close();
}

function rgb(context, width, height) {
  const { data } = context.getImageData(0, 0, width, height);
  const bytes = new Uint8ClampedArray(3 * width * height);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    bytes[to] = data[from];
    bytes[to + 1] = data[from + 1];
    bytes[to + 2] = data[from + 2];
  }
  return bytes;
}
