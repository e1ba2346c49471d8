"""The road from a teacher to a few-step student, on latents that the actions decide."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.distillation import common, seeded, students_turn
from tests.helpers.latent_clips import PRESET, clips, recording, task, trainer

from reverie import sampling
from reverie.errors import ShapeError, TrainError
from reverie.models.checkpoint import ModelBundle, load_model
from reverie.models.wan_vae import WanVAE, WanVAEConfig
from reverie.nn.cache import KVCache
from reverie.train.distill import check_fits
from reverie.train.distill_decoder import DecoderTask, DistillDecoderConfig
from reverie.train.distill_dmd import DistillDmdConfig, DmdTask
from reverie.train.distill_init import DistillInitConfig, InitTask
from reverie.train.forcing import Guided, Past, clean_estimates, follow
from reverie.train.latents import Clips
from reverie.train.trainer import Trainer


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world that has learnt for a moment: it follows the actions, in many steps better than in one."""
    folder = tmp_path_factory.mktemp("teacher")
    Trainer(task(folder, action_dropout=0.2), trainer(folder, 150)).run()
    return folder / "model"


@pytest.fixture
def teacher(teacher_folder: Path) -> ModelBundle:
    return load_model(teacher_folder)


@pytest.mark.parametrize("method", ["ode", "consistency"])
def test_a_start_makes_few_steps_better(method: str, teacher: ModelBundle, tmp_path: Path) -> None:
    """One step comes near to what the teacher makes in many."""
    config = DistillInitConfig(**common(tmp_path), method=method, teacher_steps=6)  # type: ignore[arg-type]
    torch.manual_seed(0)
    init = InitTask(config, teacher, clips(), clips(seed=1))
    before = init.validate()
    assert before["one_step_mse"] == pytest.approx(before["teacher_one_step_mse"])
    frozen = {name: p.clone() for name, p in teacher.model.named_parameters()}
    after = Trainer(init, dataclasses.replace(trainer(tmp_path, 50), lr=1e-3)).run()
    assert after["one_step_mse"] < 0.75 * before["one_step_mse"]  # the teacher predicts clean latents: near already
    assert after["teacher_one_step_mse"] == pytest.approx(before["teacher_one_step_mse"])
    assert all(torch.equal(p, frozen[name]) for name, p in teacher.model.named_parameters())
    made = load_model(tmp_path / "model")
    assert made.config.schedule == sampling.Schedule((1.0, 0.5), renoise=True, context_sigma=0.06)
    assert made.config.summary["distilled"]["steps"] == 50


@pytest.mark.parametrize("shift", [0.3, -0.3])
def test_matching_distributions_pulls_a_student_back(shift: float, teacher: ModelBundle, tmp_path: Path) -> None:
    """A student all of whose pictures are too light, and a critic that knows it: the gradient makes them darker."""
    config = DistillDmdConfig(**common(tmp_path), rollout_blocks=4, critic_updates=2, critic_first=0.0, still=0.0)  # type: ignore[arg-type]
    student = load_model(_folder_of(teacher, tmp_path)).model
    with torch.no_grad():
        student.head.bias.add_(shift)
    dmd = DmdTask(config, teacher, clips(), clips(seed=1), student)
    dmd.critic.load_state_dict(student.state_dict())
    students_turn(dmd)
    slopes = []
    for seed in range(6):
        dmd.model.zero_grad()
        loss, scalars = dmd.loss(dmd.batch(np.random.default_rng(seed)), seeded(seed))
        loss.backward()
        assert "score_gap" in scalars
        assert all(p.grad is None for p in dmd.critic.parameters())
        slopes.append(dmd.student.head.bias.grad.mean().item())  # type: ignore[union-attr]
    assert np.mean(slopes) * shift > 0
    assert sum(slope * shift > 0 for slope in slopes) >= 5


def test_a_student_is_mended(teacher: ModelBundle, tmp_path: Path) -> None:
    """Its pictures are too light; under its own rollouts it finds back to what the teacher makes."""
    given = {**common(tmp_path), "rollout_blocks": 4, "critic_first": 0.2, "still": 0.0}
    student = load_model(_folder_of(teacher, tmp_path)).model
    with torch.no_grad():
        student.head.bias.add_(0.3)
    torch.manual_seed(0)
    dmd = DmdTask(DistillDmdConfig(**given), teacher, clips(), clips(seed=1), student)  # type: ignore[arg-type]
    before = dmd.validate()
    after = Trainer(dmd, dataclasses.replace(trainer(tmp_path, 150), lr=3e-4, ema=0.95)).run()
    assert after["rollout_mse"] < 0.6 * before["rollout_mse"]


def test_a_critic_that_knows_no_difference_moves_nothing(teacher: ModelBundle, tmp_path: Path) -> None:
    config = DistillDmdConfig(**common(tmp_path), rollout_blocks=4, critic_first=0.0)  # type: ignore[arg-type]
    dmd = DmdTask(config, teacher, clips(), clips(seed=1))
    students_turn(dmd)
    loss, scalars = dmd.loss(dmd.batch(np.random.default_rng(0)), seeded(0))
    loss.backward()
    assert float(scalars["score_gap"]) == pytest.approx(0, abs=1e-6)
    assert max(p.grad.abs().max().item() for p in dmd.student.parameters() if p.grad is not None) < 1e-6


def test_in_the_critics_turns_the_student_stays_and_in_its_own_the_critic(teacher: ModelBundle, tmp_path: Path) -> None:
    config = DistillDmdConfig(**common(tmp_path), rollout_blocks=4, critic_updates=1000, still=0.0)  # type: ignore[arg-type]
    student = load_model(_folder_of(teacher, tmp_path)).model
    dmd = DmdTask(config, teacher, clips(), clips(seed=1), student)
    kept = [{name: p.clone() for name, p in part.named_parameters()} for part in (dmd.student, dmd.critic)]
    Trainer(dmd, dataclasses.replace(trainer(tmp_path, 4), lr=1e-3)).run()
    assert all(torch.equal(p, kept[0][name]) for name, p in dmd.student.named_parameters())
    assert not torch.equal(dmd.critic.head.weight, kept[1]["head.weight"])
    made = load_model(tmp_path / "model").config
    assert made.schedule.renoise


def _folder_of(teacher: ModelBundle, folder: Path) -> Path:
    from reverie.models.checkpoint import save_model

    save_model(folder / "copy", teacher, dtype=None)
    return folder / "copy"


def test_gradients_reach_one_pass_of_each_block_and_never_the_ring(teacher: ModelBundle, tmp_path: Path) -> None:
    config = DistillDmdConfig(**common(tmp_path), rollout_blocks=5)  # type: ignore[arg-type]
    dmd = DmdTask(config, teacher, clips(), clips(seed=1))
    z0, rows, picture, _ = dmd.batch(np.random.default_rng(0))
    assert rows.shape == (4, 20, 6)
    made = dmd.rollout(z0, dmd.image(picture), rows, torch.Generator().manual_seed(0))
    assert made.shape == (4, 6, *PRESET.world.latent)
    assert not made[:, 0].requires_grad or made.grad_fn is not None
    (made[:, -1] ** 2).sum().backward()
    gradients = [p.grad for p in dmd.student.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)
    assert all(p.grad is None for p in dmd.critic.parameters())


def test_a_rollout_with_gradients_equals_one_without(teacher: ModelBundle, tmp_path: Path) -> None:
    """The ring is read by copies where gradients are wanted: the same numbers, once the window is full too."""
    config = DistillDmdConfig(**{**common(tmp_path), "sigmas": (1.0,)}, rollout_blocks=9)  # type: ignore[arg-type]
    dmd = DmdTask(config, teacher, clips(), clips(seed=1))
    z0, rows, picture, _ = dmd.batch(np.random.default_rng(0))
    image = dmd.image(picture)
    wanted = dmd.rollout(z0, image, rows, torch.Generator().manual_seed(3))
    with torch.no_grad():
        plain = dmd.rollout(z0, image, rows, torch.Generator().manual_seed(3))
    torch.testing.assert_close(wanted, plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize("step", [0, 1, 2, 3, 4, 7, 10])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_ring_read_by_copies_holds_the_same(step: int, steps: int) -> None:
    ring = KVCache.empty(1, 2, 3, window=4, tokens=5, device=torch.device("cpu"), dtype=torch.float32)
    for _ in range(step):
        ring.commit(torch.randn(1, 2, 5, 3), torch.randn(1, 2, 5, 3))
    k, v = torch.randn(1, 2, 5 * steps, 3), torch.randn(1, 2, 5 * steps, 3)
    before = ring.k.clone()
    joined = ring.joined(k, v)
    assert torch.equal(ring.k, before)
    for mine, read in zip(joined, ring.read(k, v), strict=True):
        assert mine.shape == read.shape
        assert torch.equal(mine.sort(2).values, read.sort(2).values)  # attention does not care about order


def test_guidance_moves_away_from_what_knows_no_actions(teacher: ModelBundle) -> None:
    z, rows, picture, _ = clips().spread(2, 5)
    image = teacher.image_encoder(picture.float() / 127.5 - 1)
    sigma = torch.ones(2, 4)
    given = (Past(z, z, torch.zeros(2, 5)), torch.randn(2, 4, *PRESET.world.latent), sigma)
    plain, hidden, strong = (Guided(teacher.model, s)(*given, rows, image) for s in (1.0, 0.0, 2.0))
    assert torch.equal(plain, clean_estimates(teacher.model, *given, rows, image))
    torch.testing.assert_close(strong, 2 * plain - hidden, atol=1e-4, rtol=1e-4)
    assert (plain - hidden).abs().max() > 1e-3


def test_the_path_ends_where_one_level_ends(teacher: ModelBundle) -> None:
    """With a single level the path is the clean estimate; what stands at a kept level is returned before the end."""
    z, rows, picture, _ = clips().spread(2, 5)
    image = teacher.image_encoder(picture.float() / 127.5 - 1)
    noise, guided = torch.randn(2, 4, *PRESET.world.latent), Guided(teacher.model)
    past = Past(z, z, torch.zeros(2, 5))
    (end,) = follow(guided, noise, [1.0], (), past, rows, image)
    wanted = guided(past, noise, torch.ones(2, 4), rows, image)
    torch.testing.assert_close(end, wanted)
    first, half, _ = follow(guided, noise, [1.0, 0.5], (1.0, 0.5), past, rows, image)
    assert torch.equal(first, noise)
    torch.testing.assert_close(half, 0.5 * noise + 0.5 * wanted, atol=1e-5, rtol=1e-5)


def test_what_does_not_fit(teacher: ModelBundle, tmp_path: Path) -> None:
    small = Clips([dataclasses.replace(recording(), z=recording().z[:, :, :2])])
    with pytest.raises(TrainError, match=r"have latents \(16, 2, 8\) \(c, h, w\), the teacher"):
        check_fits(teacher, small)
    with pytest.raises(TrainError, match="rollout_blocks and critic_updates of at least 1"):
        DistillDmdConfig(**common(tmp_path), rollout_blocks=0)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="noise levels descend"):
        DistillInitConfig(**{**common(tmp_path), "sigmas": (0.5, 1.0)})  # type: ignore[arg-type]


def test_a_narrower_decoder_for_the_same_latents(teacher: ModelBundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (12, 17, 32, 64)
    grey = np.cumsum(rng.normal(0, 4, shape), 3).clip(-120, 120) + 128  # smooth across
    pool = np.repeat(grey[..., None], 3, -1).astype(np.uint8)
    config = DistillDecoderConfig(
        teacher=tmp_path, data=(tmp_path,), output=tmp_path, coarse=8, middle=8, fine=8, crop=(32, 64), clip_frames=5
    )
    torch.manual_seed(0)
    decoder = DecoderTask(config, teacher, pool, pool[:3])
    old, new = teacher.tokenizer, decoder.tokenizer
    video = torch.rand(1, 5, 3, 32, 64) * 2 - 1
    before = decoder.validate()
    after = Trainer(decoder, dataclasses.replace(trainer(tmp_path, 40), lr=2e-3)).run()
    assert after["psnr"] > before["psnr"] + 0.1
    assert after["teacher_psnr"] == pytest.approx(before["teacher_psnr"])
    assert torch.equal(new.encode(video), old.encode(video))
    made = load_model(tmp_path / "model")
    assert made.config.world == teacher.config.world
    assert made.tokenizer.config == new.config
    assert sum(p.numel() for p in new.decoder.parameters()) < sum(p.numel() for p in old.decoder.parameters())


def test_another_decoder_needs_a_tokenizer_of_ours(teacher: ModelBundle, tmp_path: Path) -> None:
    teacher.tokenizer = WanVAE(WanVAEConfig(dim=4))
    config = DistillDecoderConfig(teacher=tmp_path, data=(tmp_path,), output=tmp_path)
    with pytest.raises(TrainError, match="not our own"):
        DecoderTask(config, teacher, np.zeros((1, 17, 32, 64, 3), np.uint8), np.zeros((1, 17, 32, 64, 3), np.uint8))
