"""Everything that a training needs of its recordings, step by step on the device.

Legend: n latent steps of all episodes one after another, d depth images, (h w) = 64 x 112, (H W) frames, a numbers in
a row of the common action space.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reverie.errors import DataError
from reverie.models.depth import BODY_LOGIT, DepthNet
from reverie.models.tokenizer import VideoTokenizer
from reverie.scenes.ego_motion import depth_ahead, relative_motion
from reverie.scenes.keyframes import Keyframes
from reverie.train.device import fast_autocast
from reverie.train.spatial.depth import DepthImages
from reverie.train.spatial.ego_motion import Motions
from reverie.train.spatial.latent_cache import LatentCache
from reverie.train.spatial.packs import PackedEpisode, PackInfo, list_episodes, read_episodes
from reverie.types import STEP_FRAMES, ActionSpace
from reverie.vision.pixels import shrink_frames, to_bytes, to_pixels
from reverie.vision.projection import VIEW_SIZE, focal_lengths

ENCODED_STEPS = 26
"""Latent steps that are encoded at once."""


class Store:
    """Steps of all episodes.

    z: (n, c, u, v) float16 latents; still: the same of each step's last frame encoded alone; views: (n, 4, 3, h, w)
    uint8 half-size frames; last: (n, 3, H, W) uint8, what the decoder makes of each step's last frame; pose:
    (n, 4, 6); actions: (n, 4, a); motion: (n, 4, 6); episode, game, place: (n,) numpy; first: steps at which episodes
    begin, and n; key_*: real frames with engine depth: colour (d, 3, H, W), depth, hidden, step.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        tokenizer: VideoTokenizer,
        space: ActionSpace,
        device: torch.device,
        threads: int = 2,
        limit: int | None = None,
        max_frames: int | None = None,
        group: int = 8,
        decode: bool = True,
        cache: LatentCache | None = None,
    ) -> None:
        """group: episodes of equal length that are encoded at once; limit: episodes of each pack; decode: whether
        `last` holds what the decoder makes of the frames, else the frames themselves; cache: keeps what is encoded."""
        self.decode, self.cache = decode, cache
        self.device, self.space, self.tokenizer = device, space, tokenizer
        self.packs = [PackInfo.read(folder) for folder in folders]
        self.games = [pack.name for pack in self.packs]
        self.names: list[str] = []
        self.places: list[str] = []
        self.first = [0]
        self._lists: dict[str, list[Tensor]] = {}
        self._numbers: dict[str, list[int]] = {"episode": [], "game": [], "place": []}
        pending: list[PackedEpisode] = []
        for episode in read_episodes(list_episodes(folders, limit), threads, max_frames):
            self._check(episode, pending)
            if pending and (len(pending) == group or len(pending[0].frames) != len(episode.frames)):
                self._add(pending)
                pending = []
            pending.append(episode)
        if pending:
            self._add(pending)
        self._join()

    def _join(self) -> None:
        """Joins what was added, and computes what follows from it."""
        for name, parts in self._lists.items():
            setattr(self, name, torch.cat(parts))
        self._lists.clear()
        self.episode, self.game, self.place = (np.array(numbers) for numbers in self._numbers.values())
        self.count = len(self.episode)
        game = torch.from_numpy(self.game).to(self.device)
        self.fov_deg = torch.tensor([pack.fov_deg for pack in self.packs], device=self.device)[game]
        self.pixel_aspect = torch.tensor([pack.pixel_aspect for pack in self.packs], device=self.device)[game]
        self.focal = focal_lengths(self.fov_deg, self.pixel_aspect)
        self.motion = self._motions()

    z: Tensor
    still: Tensor
    views: Tensor
    last: Tensor
    pose: Tensor
    actions: Tensor
    key_colour: Tensor
    key_depth: Tensor
    key_hidden: Tensor
    key_step: Tensor

    def _check(self, episode: PackedEpisode, others: Sequence[PackedEpisode]) -> None:
        if others and episode.frames.shape[1:] != others[0].frames.shape[1:]:
            height, width = episode.frames.shape[1:3]
            raise DataError(
                f"{episode.info.name}/{episode.name} is {height}x{width}, others {others[0].frames.shape[1]}x"
                f"{others[0].frames.shape[2]}; record them at one resolution"
            )
        if episode.info.depth_every % STEP_FRAMES:
            raise DataError(f"{episode.info.name}: depth_every must be a multiple of 4, got {episode.info.depth_every}")
        if not np.isfinite(episode.pose).all():
            raise DataError(f"{episode.info.name}/{episode.name}: poses must be finite; record the episode again")

    def _add(self, episodes: Sequence[PackedEpisode]) -> None:
        """Encodes episodes of equal length together, and notes of each step where it is from."""
        steps = 1 + (len(episodes[0].frames) - 1) // STEP_FRAMES
        self._encode(episodes)
        for episode in episodes:
            game, start = episode.info.name, self.first[-1]
            self._append_episode(episode)
            self._put("key_step", start + episode.info.depth_every // STEP_FRAMES * torch.arange(len(episode.depth)))
            if (place := f"{game}/{episode.place}") not in self.places:
                self.places.append(place)
            found = {"episode": len(self.names), "game": self.games.index(game), "place": self.places.index(place)}
            for name, number in found.items():
                self._numbers[name] += [number] * steps
            self.names.append(f"{game}/{episode.name}")
            self.first.append(start + steps)

    def _put(self, name: str, value: Tensor) -> None:
        self._lists.setdefault(name, []).append(value.to(self.device))

    @torch.no_grad()
    def _encode(self, episodes: Sequence[PackedEpisode]) -> None:
        """Latents, stills, half-size frames and decoded last frames of some episodes of equal length."""
        frames = np.stack([episode.frames for episode in episodes])
        video = torch.from_numpy(frames).to(self.device).permute(0, 1, 4, 2, 3)
        steps = 1 + (video.shape[1] - 1) // STEP_FRAMES
        half = torch.cat([to_bytes(shrink_frames(part)) for part in video.split(STEP_FRAMES * ENCODED_STEPS, 1)], 1)
        half = torch.cat([half[:, :1].expand(-1, STEP_FRAMES - 1, -1, -1, -1), half], 1)
        self._put("views", half.unflatten(1, (steps, STEP_FRAMES)).flatten(0, 1))
        kept = None if self.cache is None else self.cache.read(episodes, self.decode)
        if kept is None:
            kept = self._latents(video)
            if self.cache is not None:
                self.cache.write(episodes, self.decode, kept)
        self._put("z", kept["z"].flatten(0, 1))
        self._put("still", kept["still"].flatten(0, 1))
        self._put("last", (kept["last"] if self.decode else video[:, ::STEP_FRAMES]).flatten(0, 1))

    def _latents(self, video: Tensor) -> dict[str, Tensor]:
        """z, still (b, t, c, u, v) float16 and, where frames are decoded, last (b, t, 3, H, W) uint8.

        video: (b, f, 3, H, W) uint8.
        """
        count, length, _, height, width = video.shape
        steps = 1 + (length - 1) // STEP_FRAMES
        encoder = self.tokenizer.new_encoder_state(count, height, width, self.device)
        decoder = self.tokenizer.new_decoder_state(count, height, width, self.device)
        latents, stills, lasts = [], [], []
        for start in range(0, steps, ENCODED_STEPS):
            end = min(start + ENCODED_STEPS, steps)
            pixels = to_pixels(video[:, max(0, STEP_FRAMES * start - 3) : STEP_FRAMES * (end - 1) + 1])
            alone = pixels[:, ::4] if start == 0 else pixels[:, 3::4]
            with self.autocast():
                latents.append(self.tokenizer.encode(pixels, encoder).float())
                one = self.tokenizer.encode(alone.flatten(0, 1)[:, None])[:, 0]
                stills.append(one.float().unflatten(0, alone.shape[:2]))
                if self.decode:
                    decoded = self.tokenizer.decode(latents[-1], decoder).float()
                    lasts.append(to_bytes(decoded[:, ::4] if start == 0 else decoded[:, 3::4]))
        made = {"z": torch.cat(latents, 1).half(), "still": torch.cat(stills, 1).half()}
        return made | ({"last": torch.cat(lasts, 1)} if self.decode else {})

    def _append_episode(self, episode: PackedEpisode) -> None:
        pose = torch.from_numpy(episode.pose)
        actions = torch.from_numpy(common_actions(episode.actions, episode.info.action_space, self.space))
        steps = 1 + (len(pose) - 1) // STEP_FRAMES
        before = torch.zeros(STEP_FRAMES, self.space.size)
        self._put("pose", torch.cat([pose[:1].expand(STEP_FRAMES - 1, -1), pose]).unflatten(0, (steps, STEP_FRAMES)))
        self._put("actions", torch.cat([before, actions]).unflatten(0, (steps, STEP_FRAMES)))
        self._put("key_colour", torch.from_numpy(episode.frames[:: episode.info.depth_every]).permute(0, 3, 1, 2))
        self._put("key_depth", torch.from_numpy(episode.depth))
        self._put("key_hidden", torch.from_numpy(episode.body))

    def _motions(self) -> Tensor:
        pose = self.pose.flatten(0, 1)
        motion = torch.cat([torch.zeros(1, 6, device=self.device), relative_motion(pose[:-1], pose[1:])])
        motion = motion.unflatten(0, (self.count, STEP_FRAMES))
        motion[torch.tensor(self.first[:-1], device=self.device)] = 0
        return motion

    def motions(self) -> Motions:
        """The motions of all steps; depth must have been measured."""
        return Motions(self.actions, self.motion, self.pose[:, -1, 4:6], self.ahead, self.episode, self.game)

    def depth_images(self) -> DepthImages:
        """Real frames with the game's depth."""
        colour = torch.cat([to_bytes(shrink_frames(part)) for part in self.key_colour.split(512)])
        game = self.game[self.key_step.cpu().numpy()]
        return DepthImages(colour, self.key_depth.half(), self.key_hidden, game)

    def autocast(self) -> torch.autocast:
        """bfloat16 where the device is fast in it."""
        return fast_autocast(self.device)

    @torch.no_grad()
    def measure_depth(self, network: DepthNet, batch: int = 512) -> None:
        """Depth, body, probes and depth ahead of the decoded last frames: the memory of a session."""
        depth = torch.empty(self.count, *VIEW_SIZE, dtype=torch.half, device=self.device)
        hidden = torch.empty(self.count, *VIEW_SIZE, dtype=torch.bool, device=self.device)
        ahead = []
        for i in range(0, self.count, batch):
            with self.autocast():
                log_depth, body = network(shrink_frames(self.last[i : i + batch]))
            depth[i : i + batch] = log_depth.exp().half()
            hidden[i : i + batch] = body > BODY_LOGIT
            ahead.append(depth_ahead(log_depth))
        self.depth, self.hidden, self.ahead = depth, hidden, torch.cat(ahead)
        self.own = Keyframes.new(self.last, depth, hidden, self.pose[:, -1], self.focal)


def common_actions(rows: np.ndarray, space: ActionSpace, common: ActionSpace) -> np.ndarray:
    """Action rows of one game in the common space.  Raises DataError for a key that it does not have."""
    if missing := sorted(set(space.keys) - set(common.keys)):
        raise DataError(f"the model has no key {missing[0]!r}; it has {', '.join(common.keys)}")
    out = np.zeros((len(rows), common.size), np.float32)
    for i, key in enumerate(space.keys):
        out[:, common.keys.index(key)] = rows[:, i]
    if space.mouse and common.mouse:
        out[:, -2:] = rows[:, -2:]
    return out
