"""A tiny model folder and a small recording made by a fake world, for the evaluation's end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.helpers.synthetic_recordings import SPACE, FakeRecording

from reverie.data.video import write_video
from reverie.data.writer import DatasetWriter, picture_statistics
from reverie.models.checkpoint import ModelBundle, ModelConfig, save_model
from reverie.models.idm import IDMConfig, InverseDynamics, save_idm
from reverie.models.presets import tiny
from reverie.sampling import Schedule
from reverie.types import FPS, ActionSpace


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    preset = tiny()
    config = ModelConfig(
        name="tiny",
        resolution=preset.resolution,
        schedule=Schedule((1.0,)),
        world=preset.world,
        tokenizer=preset.tokenizer,
        image_encoder=preset.image_encoder,
    )
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_model(folder, ModelBundle.new(config))
    return folder


def write_recording(folder: Path, size: tuple[int, int], space: ActionSpace = SPACE, num_frames: int = 120) -> Path:
    """A dataset of two episodes of a fake world, `size` (H, W), its actions' names those of `space`."""
    recording = FakeRecording([num_frames] * 2, size=size)
    with DatasetWriter(folder, space, size, FPS) as writer:
        for episode in range(2):
            clip = recording.clip(episode, 0, num_frames)
            video = writer.partial / "episode.mp4"
            write_video(video, clip.frames, FPS)
            meta = {"map": f"M{episode}", "heldout": True}
            writer.add(video, clip.actions[:, : space.size], None, picture_statistics(clip.frames), meta)
    return folder


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("data") / "heldout", tiny().resolution)


@pytest.fixture(scope="session")
def tiny_idm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained judge of the fake world's actions."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("idm") / "judge"
    folder.mkdir()
    model = InverseDynamics(IDMConfig(action_space=SPACE, width=16, layers=1))
    save_idm(folder, model, {"metrics": {"key.forward": 0.875}})
    return folder
