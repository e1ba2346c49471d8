// Gaussian noise from a counter: the same seed gives the same noise, whatever was drawn before by others.

/** A function that returns `count` more numbers of the normal distribution. */
export function gaussian(seed) {
  let counter = 0;
  const key = mixed(seed >>> 0, 0x9e3779b9);
  const uniform = () => (mixed(counter++, key) + 0.5) / 2 ** 32; // in (0, 1)
  return (count) => {
    const out = new Float32Array(count);
    for (let i = 0; i < count; i += 2) {
      const radius = Math.sqrt(-2 * Math.log(uniform()));
      const angle = 2 * Math.PI * uniform();
      out[i] = radius * Math.cos(angle);
      if (i + 1 < count) out[i + 1] = radius * Math.sin(angle);
    }
    return out;
  };
}

/** 32 bits that look random, of a counter and a key (two rounds of the finaliser of MurmurHash 3). */
function mixed(counter, key) {
  let x = (counter ^ key) >>> 0;
  for (let round = 0; round < 2; round++) {
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    x = ((x ^ (x >>> 16)) + key) >>> 0;
  }
  return x;
}
