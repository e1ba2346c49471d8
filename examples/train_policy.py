"""A policy that is trained in a dream of Doom, and tested in the game.

python examples/train_policy.py              # the bundled scene doom-halls; some minutes on two cores
python examples/train_policy.py --updates 3 --steps 8 --no-game

The reward is how far each step gets, in metres, so that walking on pays and walking into a wall does not.  The same
hook scores the dream and the game.  The policy is one linear layer on a small grey frame, trained by REINFORCE
(Williams 1992): enough to show the loop, no more.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import reverie.env  # registers Reverie/Dream-v0
from reverie.env import DreamEnv, Step
from reverie.errors import WorldError
from reverie.types import Action, ActionSpace
from reverie.worlds import open_world

CHOICES = (
    Action(frozenset({"forward"})),
    Action(frozenset({"forward"}), (0.0, -4.0)),
    Action(frozenset({"forward"}), (0.0, 4.0)),
    Action(frozenset({"back"})),
    Action(),
)
GRID = (8, 14)
"""Cells, down and across, of the frame that the policy sees."""

Array = npt.NDArray[Any]


def metres_moved(step: Step) -> float:
    """How far the camera has moved over the ground."""
    if step.before is None or step.camera is None:
        return 0.0
    return float(np.linalg.norm(step.camera[:2] - step.before[:2]))


class Policy(nn.Module):
    """Frames (n, H, W, 3) uint8 to logits of the choices, (n, choices)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(GRID[0] * GRID[1], len(CHOICES))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, frames: Array) -> Tensor:
        grey = torch.from_numpy(frames.mean(-1)).float()[:, None] / 127.5 - 1
        return self.head(nn.functional.adaptive_avg_pool2d(grey, GRID).flatten(1))

    @torch.no_grad()
    def choose(self, frames: Array) -> Array:
        return torch.distributions.Categorical(logits=self(frames)).sample().numpy()


def to_env_action(choices: Array, space: ActionSpace) -> dict[str, Array]:
    """The choices of n environments as one action of a vector environment."""
    rows = space.encode(space.restrict(CHOICES[choice]) for choice in choices)
    num_keys = len(space.keys)
    action: dict[str, Array] = {"keys": rows[:, :num_keys].astype(np.int8)}
    return action | ({"mouse": rows[:, num_keys:]} if space.mouse else {})


def play(envs: Any, policy: Policy, num_steps: int, space: ActionSpace, seed: int) -> tuple[list[Array], Array, Array]:
    """Frames, choices and rewards of one episode of every environment: (steps) lists of (n, ...)."""
    frames, _ = envs.reset(seed=seed)
    seen, chosen, rewards = [], [], []
    for _ in range(num_steps):
        choices = policy.choose(frames)
        seen.append(frames)
        chosen.append(choices)
        frames, reward, *_ = envs.step(to_env_action(choices, space))
        rewards.append(reward)
    return seen, np.stack(chosen), np.stack(rewards)


def update(policy: Policy, optimizer: torch.optim.Optimizer, seen: list[Array], chosen: Array, rewards: Array) -> None:
    """One step of REINFORCE, with the reward still to come as the return and its mean at each step as the baseline."""
    future = np.cumsum(rewards[::-1], 0)[::-1]
    advantage = torch.from_numpy((future - future.mean(1, keepdims=True)) / (future.std() + 1e-6)).float()
    picks = torch.distributions.Categorical(logits=policy(np.concatenate(seen)))
    log_probability = picks.log_prob(torch.from_numpy(chosen.reshape(-1)))
    loss = -(log_probability * advantage.flatten()).mean() - 0.01 * picks.entropy().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def play_game(world: Any, choose: Callable[[Array], Array], num_steps: int, block_frames: int, seed: int) -> float:
    """Metres that a policy gets in the real game; each choice is held for a block's frames, as in the dream."""
    env = DreamEnv(world, reward=metres_moved)
    frame, _ = env.reset(seed=seed)
    total = 0.0
    for _ in range(num_steps):
        rows = to_env_action(choose(frame[None]), world.action_space)
        for _ in range(block_frames):
            frame, reward, *_ = env.step({name: values[0] for name, values in rows.items()})
            total += reward
    return total


def main(arguments: list[str] | None = None, **dream: Any) -> list[float]:
    """Trains, tests, and returns the mean return of each update.  dream: options of the environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-envs", type=int, default=4)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--steps", type=int, default=16, help="of an episode; a step is a block, 0.16 s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-game", action="store_true", help="leave the test in VizDoom out")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    dream = dream or {"scene": "doom-halls"}
    envs: Any = gymnasium.make_vec("Reverie/Dream-v0", num_envs=options.num_envs, reward=metres_moved, **dream)
    space, block_frames = envs.engine.action_space, envs.engine.block_frames
    policy = Policy()
    optimizer = torch.optim.Adam(policy.parameters(), 0.03)
    returns = []
    for number in range(options.updates):
        seen, chosen, rewards = play(envs, policy, options.steps, space, options.seed + 1000 * number)
        update(policy, optimizer, seen, chosen, rewards)
        returns.append(float(rewards.sum(0).mean()))
        print(f"update {number + 1}: {returns[-1]:.2f} m in {options.steps * block_frames / 25:.1f} s of the dream")
    envs.close()
    if not options.no_game:
        compare_in_game(policy, options.steps, block_frames)
    return returns


def compare_in_game(policy: Policy, num_steps: int, block_frames: int, episodes: int = 4) -> None:
    """Prints how far the policy and random choices get in VizDoom."""
    try:
        world = open_world("vizdoom", hands=False)
    except WorldError as error:
        print(f"not tested in the game: {error}")
        return
    random = np.random.default_rng(0)
    players = {"the policy": policy.choose, "random choices": lambda frames: random.integers(len(CHOICES), size=1)}
    for name, choose in players.items():
        metres = [play_game(world, choose, num_steps, block_frames, seed) for seed in range(episodes)]
        spread = f"{min(metres):.2f} to {max(metres):.2f}"
        print(f"in the game, {name}: {np.mean(metres):.2f} m (of {episodes} episodes: {spread})")
    world.close()


if __name__ == "__main__":
    assert reverie.env
    main()
