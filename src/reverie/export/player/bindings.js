// What keys and mouse mean in this world, and what the player wants right now.  The same as serve/bindings.py.

/** The latest wish: keys held, keys tapped since the last block, and the mouse's movement since then. */
export class InputBox {
  #held = [];
  #tapped = new Set();
  #mouse = [0, 0];
  #seq = 0;

  /** bindings: of the welcome, with max_turn_deg; keys: of the action space, in order; mouse: whether it has one. */
  constructor(bindings, keys, mouse) {
    Object.assign(this, { bindings, keys, mouse });
  }

  put({ seq, codes, mouse }) {
    if (seq < this.#seq) return;
    this.#seq = seq;
    this.#held = codes;
    for (const code of codes) this.#tapped.add(code);
    this.#mouse = [this.#mouse[0] + mouse[0], this.#mouse[1] + mouse[1]];
  }

  /** {rows: an action row for each of `frames`, action: the number of the latest input in them}. */
  take(frames) {
    const codes = new Set([...this.#held, ...this.#tapped]);
    const row = this.#row(codes, frames);
    this.flush();
    return { rows: Float32Array.from({ length: frames * row.length }, (_, i) => row[i % row.length]), action: this.#seq };
  }

  /** Drops taps and movement that no block has taken. */
  flush() {
    this.#tapped.clear();
    this.#mouse = [0, 0];
  }

  #row(codes, frames) {
    const { keys, turns, deg_per_px, max_turn_deg } = this.bindings;
    const held = new Set([...codes].map((code) => keys[code]));
    const row = this.keys.map((key) => Number(held.has(key)));
    if (!this.mouse) return row;
    const turn = [(-this.#mouse[1] * deg_per_px) / frames, (this.#mouse[0] * deg_per_px) / frames];
    for (const [code, degrees] of Object.entries(turns)) {
      if (codes.has(code)) degrees.forEach((value, axis) => (turn[axis] += value));
    }
    return [...row, ...turn.map((value, axis) => Math.max(-max_turn_deg[axis], Math.min(max_turn_deg[axis], value)))];
  }
}
