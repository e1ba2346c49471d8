"""What moves the picture is learnt from latents and actions."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.train.test_world import PRESET, recording

from reverie import flow
from reverie.errors import ShapeError, TrainError
from reverie.flow import Schedule
from reverie.models import presets
from reverie.models.camera import TurnedStep
from reverie.models.checkpoint import ModelBundle, ModelConfig, save_model
from reverie.models.dit import WorldModel
from reverie.models.image_encoder import ImageEncoder
from reverie.models.tokenizer import VideoTokenizer
from reverie.train.latents import Clips, LatentClips
from reverie.train.motion import TrainMotionConfig, fit_motion
from reverie.train.start import take_weights
from reverie.types import ActionSpace

CPU = torch.device("cpu")
PRESET_SCHEDULE = Schedule((1.0, 0.5), context_sigma=0.06)


def scrolling(seed: int, steps: int = 240) -> LatentClips:
    """A long wall that scrolls to the left by a pixel and a half a frame while "left" is held.

    Pictures of 16x32 at half size; a latent holds the mean colours of every 4x4 pixels in four frames.
    """
    rng = np.random.default_rng(seed)
    rows = np.zeros((steps, 4, 6), np.float32)
    rows[..., 2] = np.repeat(rng.integers(0, 2, steps // 4), 4)[:, None]
    place = np.concatenate([[0], rows.reshape(-1, 6)[:, 2].cumsum()[:-1]]) * 1.5
    coarse = torch.from_numpy(rng.normal(size=(1, 3, 4, 400)).astype(np.float32))
    wall = F.interpolate(coarse, (16, 1600), mode="bicubic")[0]
    frames = torch.stack([wall[:, :, int(x) : int(x) + 32] for x in place]).unflatten(0, (steps, 4)).clamp(-1, 1)
    means = F.avg_pool2d(frames.flatten(0, 1), 4).unflatten(0, (steps, 4)).flatten(1, 2)
    z = torch.cat([means, torch.zeros(steps, 4, 4, 8)], 1).half().numpy()
    return dataclasses.replace(
        recording(episodes=1, length=steps),
        z=z,
        still=z,
        rows=rows,
        fit_index=np.arange(0, steps),
        fit_frames=((frames + 1) * 127.5).round().byte().numpy(),
    )


def decode(z: torch.Tensor) -> torch.Tensor:
    """The pictures of `scrolling`, at full size, which its latents keep as mean colours."""
    means = z[:, :, :12].unflatten(2, (4, 3)).flatten(1, 2)[:, 3:]
    return F.interpolate(means.flatten(0, 1), scale_factor=8, mode="bicubic").unflatten(0, means.shape[:2])


def test_motion_is_learnt_and_kept(tmp_path: Path) -> None:
    train, held_out = Clips([scrolling(0)]), Clips([scrolling(1)])
    torch.manual_seed(0)
    world = WorldModel(PRESET.world)
    assert world.turned_step is not None
    world.turned_step.fit(*train.turned_step_data())
    file = tmp_path / "motion.safetensors"
    found = fit_motion(world, decode, train, held_out, 150, CPU, file)
    assert found["moved_mse"] < 0.6 * found["turned_mse"]
    assert found["moved_flow_px"] < 0.5 * found["turned_flow_px"]
    assert not any(p.requires_grad for p in world.turned_step.parameters())
    again = WorldModel(PRESET.world)
    again.turned_step.load_state_dict(  # type: ignore[union-attr]
        {name: x for name, x in world.turned_step.state_dict().items() if not name.startswith("motion")}, strict=False
    )
    kept = fit_motion(again, decode, train, held_out, 150, CPU, file)  # read, not trained again
    assert kept["moved_mse"] == pytest.approx(found["moved_mse"])


def test_only_the_mouse_or_a_sideways_key_moves_the_whole_picture_aside() -> None:
    """Whatever the network says; and the key only while the mouse does not."""
    world = WorldModel(PRESET.world)
    step, keys = world.turned_step, PRESET.world.action_space.keys
    assert isinstance(step, TurnedStep)
    assert step.motion is not None
    torch.nn.init.constant_(step.motion.leave.bias, 1.0)
    z, rows = torch.randn(3, *PRESET.world.latent), torch.zeros(3, PRESET.world.action_frames, len(keys) + 2)
    rows[:, -4:, keys.index("forward")] = 1
    rows[1:, 0, keys.index("left")] = 1
    turn = torch.zeros(3, 4, 2)
    turn[2, -1, 1] = 1
    straight, aside, turned = step.look(z, turn, rows).field.mean((-2, -1))
    assert straight[:, 0].abs().max() < 1e-6
    assert turned[:, 0].abs().max() < 1e-6
    assert aside[:, 0].abs().min() > 0.1
    assert straight[:, 1].abs().min() > 0.1  # up and down it may go


def test_what_moves_is_told_the_keys_and_not_the_turn() -> None:
    world = WorldModel(PRESET.world)
    rows = torch.rand(2, 12, PRESET.world.action_space.size)
    turns, told = world.what_moves(rows)
    keys = len(PRESET.world.action_space.keys)
    assert torch.equal(told[:, -1, -4:, :keys], rows[:, -4:, :keys])
    assert not told[..., keys:].any()
    torch.testing.assert_close(turns[:, -1], rows[:, -4:, keys:].double().cumsum(1))


def test_only_a_model_with_a_motion_network_learns_what_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TOP_PAD_", "131072")  # a command that finds it set does not start itself again
    some = bundle(("forward", "jump"), 0)
    world = dataclasses.replace(some.config.world, motion=0)
    folder = tmp_path / "model"
    save_model(folder, ModelBundle.new(dataclasses.replace(some.config, world=world)))
    config = TrainMotionConfig(start=folder, data=(tmp_path,), output=tmp_path / "out", device="cpu")
    with pytest.raises(TrainError, match="has no motion network"):
        config.run()
    with pytest.raises(TrainError, match="expected steps >= 1, got 0"):
        dataclasses.replace(config, steps=0)


def bundle(keys: tuple[str, ...], seed: int) -> ModelBundle:
    preset = presets.tiny(ActionSpace(keys, mouse=True))
    torch.manual_seed(seed)
    config = ModelConfig(
        name="some",
        resolution=preset.resolution,
        schedule=PRESET_SCHEDULE,
        world=preset.world,
        tokenizer=preset.tokenizer,
        image_encoder=preset.image_encoder,
    )
    parts = WorldModel(preset.world), VideoTokenizer(preset.tokenizer), ImageEncoder(preset.image_encoder)
    for parameter in parts[0].parameters():  # fresh ones are silent
        parameter.data.add_(0.05 * torch.randn(parameter.shape))
    return ModelBundle(config, *parts)


def test_weights_are_taken_by_the_names_of_keys() -> None:
    old, new = bundle(("forward", "jump"), 0), bundle(("crouch", "jump", "forward"), 1)
    take_weights(old, new)
    new.model.turned_step.load_state_dict(  # type: ignore[union-attr]
        {n: x for n, x in old.model.turned_step.state_dict().items() if "told" not in n}, strict=False
    )
    for model in (old.model, new.model):
        model.turned_step.motion.told.weight.data.zero_()  # type: ignore[union-attr]
        model.turned_step.motion.told.bias.data.zero_()  # type: ignore[union-attr]
    z = torch.randn(1, 3, *PRESET.world.latent)
    rows = torch.rand(1, 8, 4).round()
    wide = torch.stack([torch.zeros(1, 8), rows[..., 1], rows[..., 0], rows[..., 2], rows[..., 3]], -1)
    image = torch.randn(1, PRESET.world.image_tokens, PRESET.world.image_dim)
    sigma = torch.ones(1, 3)
    with torch.no_grad():
        expected = old.model(z, sigma, old.model.clip_condition(rows, z, image))
        same = new.model(z, sigma, new.model.clip_condition(wide, z, image))
        crouched = new.model(z, sigma, new.model.clip_condition(wide + torch.eye(5)[0], z, image))
    torch.testing.assert_close(same, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(crouched, expected, atol=1e-5, rtol=1e-5)  # a new key has no effect yet
    other = bundle(("forward", "jump"), 2)
    other.model.head = torch.nn.Linear(3, 3)
    with pytest.raises(TrainError, match="it is of another preset"):
        take_weights(other, new)


def dream(sure: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A start, and the last of 20 steps of doing nothing in a world whose motion is so sure that everything stays."""
    some = bundle(("forward", "jump"), 0)
    model, z0 = some.model, torch.randn(1, 1, *PRESET.world.latent)
    model.turned_step.motion.leave.weight.data.zero_()  # type: ignore[union-attr]
    model.turned_step.motion.leave.bias.data[-2] = sure  # type: ignore[union-attr]
    image = torch.randn(1, PRESET.world.image_tokens, PRESET.world.image_dim)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        state = model.new_state(1, CPU, torch.float32)
        flow.begin(model, z0, image, PRESET_SCHEDULE, state, generator)
        for _ in range(20):
            z = flow.advance(model, torch.zeros(1, 4, 4), PRESET_SCHEDULE, state, generator)
    return z0, z


def test_what_stays_for_sure_stays_for_good() -> None:
    z0, z = dream(sure=3.0)
    torch.testing.assert_close(z, z0, atol=1e-5, rtol=1e-5)
    z0, z = dream(sure=-3.0)
    assert (z - z0).abs().mean() > 0.1


@pytest.mark.parametrize("trust", [0.0, 0.25, 1.0])
def test_trust_scales_what_the_network_adds(trust: float) -> None:
    some = bundle(("forward", "jump"), 0).model
    wary = WorldModel(dataclasses.replace(some.config, trust=trust))
    wary.load_state_dict(some.state_dict())
    z, rows = torch.randn(1, 3, *PRESET.world.latent), torch.ones(1, 8, 4)
    image = torch.randn(1, PRESET.world.image_tokens, PRESET.world.image_dim)
    cond, sigma = some.clip_condition(rows, z, image), torch.ones(1, 3)
    with torch.no_grad():
        guess = cond.extra[:, :, 4 : 4 + PRESET.world.latent[0]]
        added, kept = (flow.clean_from_velocity(z, model(z, sigma, cond), sigma) - guess for model in (some, wary))
    torch.testing.assert_close(kept, (1 - trust) * added, atol=1e-5, rtol=1e-5)
    assert added.abs().mean() > 0.05


def test_trust_is_a_share_of_a_model_with_a_camera() -> None:
    config = PRESET.world
    for wrong in ({"trust": 1.5}, {"trust": -0.1}, {"trust": 0.5, "camera": None, "cond_channels": 20, "motion": 0}):
        with pytest.raises(ShapeError, match="trust is between 0 and 1"):
            dataclasses.replace(config, **wrong)  # type: ignore[arg-type]


def test_what_a_finished_model_is_given_for_play() -> None:
    config = dataclasses.replace(PRESET.world, trust=0.5)
    assert config.finished(None, None) == config
    assert config.finished(None, True) == dataclasses.replace(config, canvas=True)  # its trust is kept
    assert config.finished(0.0, None) == PRESET.world
    with pytest.raises(ShapeError, match="trust is between 0 and 1"):
        config.finished(1.5, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_session_with_a_canvas_goes_on_from_a_copy_as_from_itself(dtype: torch.dtype) -> None:
    some = bundle(("forward", "jump"), 0).model
    model = WorldModel(dataclasses.replace(some.config, canvas=True)).eval()
    model.load_state_dict(some.state_dict())
    model.to(dtype)
    z0 = torch.randn(1, 1, *PRESET.world.latent, dtype=dtype)
    image = torch.randn(1, PRESET.world.image_tokens, PRESET.world.image_dim, dtype=dtype)
    rows = torch.tensor([0.0, 0.0, 0.0, 2.0]).expand(1, 4, 4)
    state = model.new_state(1, CPU, dtype)
    with torch.no_grad():
        flow.begin(model, z0, image, PRESET_SCHEDULE, state, torch.Generator().manual_seed(0))
        flow.advance(model, rows, PRESET_SCHEDULE, state, torch.Generator().manual_seed(1))
        copy, taken = state.clone(), model.new_state(1, CPU, dtype)
        taken.copy_(state)
        first, *others = (
            flow.advance(model, rows, PRESET_SCHEDULE, s, torch.Generator().manual_seed(2))
            for s in (state, copy, taken)
        )
    assert all(torch.equal(first, other) for other in others)
    assert state.canvas is not None
    state.reset()
    assert not state.canvas.written.any()


def test_a_canvas_is_of_models_with_a_camera() -> None:
    with pytest.raises(ShapeError, match="a canvas is for models with a camera"):
        dataclasses.replace(PRESET.world, canvas=True, camera=None, cond_channels=20, motion=0)
