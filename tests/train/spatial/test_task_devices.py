"""Every stage of a training with a spatial memory on a device that is not the CPU: nothing is left behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.made_up_packs import SPACE, write_pack
from tests.helpers.pretend_gpu import is_there, pretended_gpu
from tests.helpers.small_model import save_untrained_model

from reverie.models.checkpoint import load_model
from reverie.models.tokenizer import VideoTokenizer
from reverie.train.batches import move
from reverie.train.recipes import new_bundle
from reverie.train.spatial.encoded_recordings import Store
from reverie.train.spatial.figures import contact_sheet
from reverie.train.spatial.geometry import train_depth_of, train_ego_motion_of
from reverie.train.spatial.plans import tiny
from reverie.train.spatial.task import SpatialTask
from reverie.train.spatial.views import standard_views


def test_what_is_left_behind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests below can fail."""
    with pretended_gpu(monkeypatch) as gpu:
        there, here = torch.ones(2, 3, device=gpu), torch.ones(2, 3)
        assert there.device == gpu
        assert (there * 2 + 1).sum(0).device == gpu
        assert there.cpu().device == torch.device("cpu")
        assert is_there(here.to(gpu))
        assert is_there(there[torch.tensor([0, 1])]), "as on a GPU"
        for wrong in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: here[torch.tensor([0], device=gpu)],
            lambda: torch.where(there > 0, there, here),
            lambda: torch.rand(2, device=gpu, generator=torch.Generator()),
            lambda: torch.nn.functional.linear(there, here),
        ):
            with pytest.raises(RuntimeError, match="device"):
                wrong()
        with pytest.raises(TypeError, match="on a GPU to numpy"):
            there.numpy()
        assert there.sum().item() == 6


@pytest.mark.parametrize("decode", [True, False])
def test_every_stage_stays_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: None, decode: bool
) -> None:
    packs, held_packs = write_pack(tmp_path / "room", 3), write_pack(tmp_path / "held" / "room", 1, seed=1)
    recipe = tiny()
    bundle = new_bundle(recipe, save_untrained_model(tmp_path / "tokenizer", SPACE))
    memory, tokenizer = bundle.memory, bundle.tokenizer
    assert memory is not None
    assert isinstance(tokenizer, VideoTokenizer)
    with pretended_gpu(monkeypatch) as gpu:
        for module in bundle.modules().values():
            module.to(gpu)
        train, held = (Store([pack], tokenizer, SPACE, gpu, decode=decode) for pack in (packs, held_packs))
        assert all(map(is_there, (train.z, train.views, train.last, train.pose, train.key_colour, train.motion)))
        train_depth_of(memory, train, held, 2.0, print, 2)
        for store in (train, held):
            store.measure_depth(memory.depth)
        memory.ego_motion.requires_grad_(True)
        train_ego_motion_of(memory, train, held, 2.0, print, 4)
        views, held_views, scene = standard_views(train, held, memory, recipe.keyframes, print)
        assert all(is_there(view.parts) for view, _ in views)
        plan = dataclasses.replace(recipe.plan, shortcut_share=1.0, own_share=1.0)
        task = SpatialTask(bundle, train, held, plan, views, held_views, scene, print)
        task.device = gpu
        task.model.to(gpu)
        for progress, own in ((0.0, False), (0.07, False), (0.2, True), (0.8, False)):
            task.progress = progress
            batch = move(dataclasses.replace(task.batch(np.random.default_rng(0)), is_own=own), gpu)
            loss, scalars = task.loss(batch, torch.Generator(gpu).manual_seed(0))
            loss.backward()
            assert is_there(loss)
            assert ("own_mse" in scalars) == own
            assert ("judge_loss" in scalars) == (progress > 0.5)
        task.model.eval()
        with torch.no_grad():
            assert np.isfinite(list(task.validate().values())).all()
            contact_sheet(bundle, held, scene, plan.schedule, tmp_path, 5)
            task.export_so_far(tmp_path, {})
    assert load_model(tmp_path / "model").config.action_space == SPACE
