"""A dream as a Gymnasium environment, walked by random actions.

python examples/gym_env.py            # the bundled model
python examples/gym_env.py path/to/model
"""

from __future__ import annotations

import sys

import gymnasium

import reverie.env  # noqa: F401  # registers Reverie/Dream-v0


def main(model: str = "nano", num_steps: int = 25) -> None:
    env = gymnasium.make("Reverie/Dream-v0", model=model, max_steps=num_steps)
    picture, info = env.reset(seed=1)
    truncated = False
    steps = 0
    while not truncated:
        picture, _, _, truncated, info = env.step(env.action_space.sample())
        steps += 1
    print(
        f"{steps} steps of {len(info['frames'])} frames, the last picture is {picture.shape}, mean {picture.mean():.0f}"
    )
    env.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "nano")
