import dataclasses

import pytest
import torch

from reverie import sampling
from reverie.errors import ShapeError
from reverie.models import presets
from reverie.models.conditioning.next_condition import start_condition
from reverie.models.dit import WorldModel
from reverie.models.schedule import pass_counts, with_passes
from reverie.sampling import Schedule


class Knows:
    """A model that knows the clean answer, and says it as its configuration has it."""

    def __init__(self, clean: torch.Tensor, predicts: str, step_sizes: int = 0) -> None:
        self.config = dataclasses.replace(presets.tiny().world, predicts=predicts, step_sizes=step_sizes)  # type: ignore[arg-type]
        self.clean, self.levels, self.told = clean, [], []

    def __call__(
        self, x: torch.Tensor, sigma: torch.Tensor, cond: object, state: object, *, step_size: torch.Tensor | None
    ) -> torch.Tensor:
        self.levels.append(float(sigma[0, 0]))
        self.told.append(None if step_size is None else float(step_size[0, 0]))
        return self.clean if self.config.predicts == "clean" else sampling.velocity_from_clean(x, self.clean, sigma)


def test_noise_velocity_and_clean_are_one_line() -> None:
    z, eps = torch.randn(2, 1, 3, 4, 4, 4)
    sigma = torch.rand(1, 3)
    x = sampling.add_noise(z, eps, sigma)
    v = sampling.velocity_from_clean(x, z, sigma)
    torch.testing.assert_close(v, eps - z, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(sampling.clean_from_velocity(x, v, sigma), z)
    assert torch.equal(sampling.add_noise(z, eps, 0.0), z)
    assert torch.equal(sampling.add_noise(z, eps, 1.0), eps)


@pytest.mark.parametrize("predicts", ["velocity", "clean"])
@pytest.mark.parametrize("renoise", [False, True])
def test_denoising_with_the_answer_finds_it(renoise: bool, predicts: str) -> None:
    clean, noise = torch.randn(2, 1, 2, 3, 4, 4)
    model = Knows(clean, predicts)
    schedule = Schedule((1.0, 0.7, 0.2), renoise=renoise)
    out = sampling.denoise(model, noise, None, schedule, None, lambda i: torch.randn_like(noise))  # type: ignore[arg-type]
    torch.testing.assert_close(out, clean, atol=1e-5, rtol=1e-5)
    assert model.levels == pytest.approx([1.0, 0.7, 0.2])


@pytest.mark.parametrize(("passes", "size"), [(1, 1.0), (2, 0.5), (4, 0.25)])
def test_models_that_are_told_of_step_sizes_are_told_the_schedules(passes: int, size: float) -> None:
    clean, noise = torch.randn(2, 1, 2, 3, 4, 4)
    model = Knows(clean, "clean", step_sizes=4)
    sampling.denoise(model, noise, None, Schedule(tuple(1 - i / passes for i in range(passes))))  # type: ignore[arg-type]
    assert model.told == [size] * passes
    renoising = Schedule((1.0, 0.5), renoise=True)  # its passes go all the way each time
    sampling.denoise(model, noise, None, renoising, None, lambda i: noise)  # type: ignore[arg-type]
    assert model.told[passes:] == [None, None]


def test_shifting_moves_levels_up_and_keeps_the_ends() -> None:
    assert sampling.shifted(0.0, 5) == 0
    assert sampling.shifted(1.0, 5) == 1
    assert sampling.shifted(0.666, 5) == pytest.approx(0.90884, abs=1e-5)


@pytest.mark.parametrize("sigmas", [(), (0.5, 1.0), (1.2,)])
def test_an_impossible_schedule_is_refused(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(ShapeError, match="noise levels"):
        Schedule(sigmas)


def test_a_block_of_another_shape_is_refused() -> None:
    model = WorldModel(presets.tiny().world)
    state = model.new_state()
    with pytest.raises(ShapeError, match=r"\(1, 4, 6\)"):
        sampling.advance(model, torch.zeros(1, 3, 6), Schedule((1.0,)), state, torch.Generator())
    with pytest.raises(ShapeError, match="latent steps"):
        model(torch.zeros(1, 1, 16, 6, 8), torch.ones(1, 1), start_condition(model, state), state)


@pytest.mark.parametrize(
    ("schedule", "step_sizes", "counts", "count", "sigmas"),
    [
        (Schedule((1.0,), context_sigma=0.25), 4, (1, 2, 4, 8), 4, (1.0, 0.75, 0.5, 0.25)),
        (Schedule((1.0, 0.9, 0.8)), 2, (1, 2, 3), 2, (1.0, 0.5)),
        (Schedule((1.0, 0.9, 0.8)), 2, (1, 2, 3), 3, (1.0, 0.9, 0.8)),
        (Schedule((1.0, 0.9, 0.8), renoise=True), 4, (1, 2, 3), 2, (1.0, 0.9)),
        (Schedule((1.0, 0.8, 0.6, 0.3)), 0, (1, 2, 3, 4), 2, (1.0, 0.6)),
        (Schedule((0.9,)), 0, (1,), 1, (0.9,)),
    ],
)
def test_a_block_can_be_made_in_other_numbers_of_passes(
    schedule: Schedule, step_sizes: int, counts: tuple[int, ...], count: int, sigmas: tuple[float, ...]
) -> None:
    assert pass_counts(schedule, step_sizes) == counts
    other = with_passes(schedule, step_sizes, count)
    assert other == dataclasses.replace(schedule, sigmas=sigmas)
    for wrong in (0, counts[-1] + 1):
        with pytest.raises(ShapeError, match=f"in {', '.join(map(str, counts))} passes by this model, got {wrong}"):
            with_passes(schedule, step_sizes, wrong)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_model_of_several_step_sizes_is_told_the_step_of_its_passes(count: int) -> None:
    model = Knows(torch.randn(1, 2, 3, 4, 4), "clean", step_sizes=4)
    schedule = with_passes(Schedule((1.0,)), 4, count)
    z = sampling.denoise(model, torch.randn(1, 2, 3, 4, 4), None, schedule)  # type: ignore[arg-type]
    torch.testing.assert_close(z, model.clean)
    assert model.told == [1 / count] * count
    assert model.levels == [1 - i / count for i in range(count)]
