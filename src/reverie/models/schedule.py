"""Noise levels that a model is sampled at, as its folder sets them.  `reverie.sampling` does the sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reverie.errors import ShapeError


@dataclass(frozen=True, slots=True)
class Schedule:
    """Denoising schedule of a block.

    sigmas: descending noise levels, from 1; one network pass each.  renoise: between passes the clean estimate gets
    fresh noise (few-step distilled models), else the straight path is followed (Euler).  context_sigma: noise that is
    mixed into a block before it becomes context, which hides small errors and so stops them from growing (GameNGen,
    arXiv 2408.14837).
    """

    sigmas: tuple[float, ...]
    renoise: bool = False
    context_sigma: float = 0.0

    @property
    def num_draws(self) -> int:
        """Number of noise draws of a block: at first, after each pass but the last, and for the context."""
        return 1 + (len(self.sigmas) - 1) * self.renoise + (self.context_sigma > 0)

    def __post_init__(self) -> None:
        if not self.sigmas or list(self.sigmas) != sorted(self.sigmas, reverse=True) or not 0 < self.sigmas[0] <= 1:
            raise ShapeError(f"noise levels descend from at most 1 to above 0, got {self.sigmas}")


def pass_counts(schedule: Schedule, step_sizes: int) -> tuple[int, ...]:
    """Numbers of passes that a model can make a block with, ascending.

    step_sizes: step sizes that it was trained for, 1, 1/2, 1/4 and so on; 0 for a model that only knows the noise
    levels of its schedule, which can be shortened.
    """
    own = len(schedule.sigmas)
    if step_sizes and not schedule.renoise:
        return tuple(sorted({own, *(2**halvings for halvings in range(step_sizes))}))
    return tuple(range(1, own + 1))


def with_passes(schedule: Schedule, step_sizes: int, count: int) -> Schedule:
    """The schedule of `count` passes, one of `pass_counts`: even steps, or evenly spread levels of `schedule`.

    Raises ShapeError for another number.
    """
    own = len(schedule.sigmas)
    if count not in (known := pass_counts(schedule, step_sizes)):
        raise ShapeError(f"a block is made in {', '.join(map(str, known))} passes by this model, got {count}")
    if count == own:
        return schedule
    if step_sizes and not schedule.renoise:
        return replace(schedule, sigmas=tuple(1 - i / count for i in range(count)))
    return replace(schedule, sigmas=tuple(schedule.sigmas[i * own // count] for i in range(count)))


def shifted(sigma: float, shift: float) -> float:
    """A noise level moved towards 1, `s' = shift s / (1 + (shift - 1) s)` (Esser et al., arXiv 2403.03206, eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)
