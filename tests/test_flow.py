import pytest
import torch

from reverie import flow
from reverie.errors import ShapeError
from reverie.flow import Schedule
from reverie.models import presets
from reverie.models.dit import WorldModel


class Knows:
    """A model that knows the clean answer: its velocity points from it to the noisy input."""

    def __init__(self, clean: torch.Tensor) -> None:
        self.clean, self.levels = clean, []

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, cond: object, state: object) -> torch.Tensor:
        self.levels.append(float(sigma[0, 0]))
        return flow.velocity_from_clean(x, self.clean, sigma)


def test_noise_velocity_and_clean_are_one_line() -> None:
    z, eps = torch.randn(2, 1, 3, 4, 4, 4)
    sigma = torch.rand(1, 3)
    x = flow.add_noise(z, eps, sigma)
    v = flow.velocity_from_clean(x, z, sigma)
    torch.testing.assert_close(v, eps - z, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(flow.clean_from_velocity(x, v, sigma), z)
    assert torch.equal(flow.add_noise(z, eps, 0.0), z)
    assert torch.equal(flow.add_noise(z, eps, 1.0), eps)


@pytest.mark.parametrize("renoise", [False, True])
def test_denoising_with_the_answer_finds_it(renoise: bool) -> None:
    clean, noise = torch.randn(2, 1, 2, 3, 4, 4)
    model = Knows(clean)
    schedule = Schedule((1.0, 0.7, 0.2), renoise=renoise)
    out = flow.denoise(model, noise, None, schedule, None, lambda i: torch.randn_like(noise))  # type: ignore[arg-type]
    torch.testing.assert_close(out, clean, atol=1e-5, rtol=1e-5)
    assert model.levels == pytest.approx([1.0, 0.7, 0.2])


def test_shifting_moves_levels_up_and_keeps_the_ends() -> None:
    assert flow.shifted(0.0, 5) == 0
    assert flow.shifted(1.0, 5) == 1
    assert flow.shifted(0.666, 5) == pytest.approx(0.90884, abs=1e-5)


@pytest.mark.parametrize("sigmas", [(), (0.5, 1.0), (1.2,)])
def test_an_impossible_schedule_is_refused(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(ShapeError, match="noise levels"):
        Schedule(sigmas)


def test_a_block_of_another_shape_is_refused() -> None:
    model = WorldModel(presets.tiny().world)
    state = model.new_state()
    with pytest.raises(ShapeError, match=r"\(1, 4, 6\)"):
        flow.advance(model, torch.zeros(1, 3, 6), Schedule((1.0,)), state, torch.Generator())
    with pytest.raises(ShapeError, match="latent steps"):
        model(torch.zeros(1, 1, 16, 6, 8), torch.ones(1, 1), model.start_condition(state), state)
