// Walls stop the camera.  The same as models/conditioning/walls.py, which describes it.

import { VIEW, unproject } from "./projection.js";

const BODY_RADIUS = 0.3;
const STRAYS = 3;
const ANGLES_DEG = [0, 20, -20, 40, -40, 60, -60, 80, -80];
const PLACES = 6;
const NEAREST = 512;
const SET_BACK = 2;
const PIXELS = Array.from({ length: VIEW.h * VIEW.w }, (_, i) => i).filter(
  (i) => i % VIEW.w % 2 === 1 && Math.floor(i / VIEW.w) % 2 === 1,
);

/** A pose behind the camera, level and turned to where `poses` take it. */
export function headingPose(camera, poses) {
  const [x, y] = wayOf(camera, poses);
  const length = Math.max(Math.hypot(x, y), 1e-12);
  const yaw = (Math.atan2(x, y) * 180) / Math.PI;
  const back = SET_BACK / length;
  return Float32Array.of(camera[0] - back * x, camera[1] - back * y, camera[2], yaw, 0, 0);
}

/** Where the camera would go on the ground, [x, y]. */
const wayOf = (camera, poses) => [0, 1].map((i) => poses.at(-1)[i] - camera[i]);

/** Takes from `poses` what would bring the camera into a surface of keyframes {depth, hidden, pose}. */
export function stopAtSurfaces(camera, poses, keyframes, focal) {
  const [x, y] = wayOf(camera, poses);
  const near = surfacesNear(camera, Math.hypot(x, y) + BODY_RADIUS, keyframes, focal);
  const allowed = Math.max(crowd(near, 0, 0), STRAYS);
  let best = null;
  for (const angle of ANGLES_DEG.map((degrees) => (degrees * Math.PI) / 180)) {
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    const way = [c * (c * x - s * y), c * (s * x + c * y)];
    let free = 0;
    while (free < PLACES && crowd(near, ...way.map((one) => (one * (free + 1)) / PLACES)) <= allowed) free++;
    const ahead = (free / PLACES) * c * c;
    // The first of ways that lead as far: one angle and its opposite do, but for rounding.
    if (best === null || ahead > best.ahead + 1e-9) best = { ahead, moved: way.map((one) => (one * free) / PLACES) };
  }
  return poses.map((pose, i) => {
    const along = (i + 1) / poses.length;
    const [right, up] = [along * (best.moved[0] - x), along * (best.moved[1] - y)];
    return Float32Array.of(pose[0] + right, pose[1] + up, ...pose.subarray(2));
  });
}

/** Offsets {x, y} from the camera of the nearest drawn points at the body's height, within `reach` metres. */
function surfacesNear(camera, reach, keyframes, focal) {
  const found = [];
  for (const { depth, hidden, pose } of keyframes) {
    const points = unproject(depth, pose, focal, PIXELS);
    for (let i = 0; i < PIXELS.length; i++) {
      if (hidden[PIXELS[i]] || Math.abs(points[3 * i + 2] - camera[2]) >= BODY_RADIUS) continue;
      const [x, y] = [points[3 * i] - camera[0], points[3 * i + 1] - camera[1]];
      const squared = x * x + y * y;
      if (squared < reach * reach) found.push({ x, y, squared });
    }
  }
  if (found.length > NEAREST) found.sort((a, b) => a.squared - b.squared).length = NEAREST;
  return found;
}

/** Points inside a body at an offset from the camera. */
function crowd(points, x, y) {
  let count = 0;
  for (const one of points) if ((x - one.x) ** 2 + (y - one.y) ** 2 < BODY_RADIUS ** 2) count++;
  return count;
}
