"""`reverie evaluate`: a model measured against held-out recordings, as tables, JSON, images, clips and one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from reverie.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Measure a model against held-out recordings: does it obey, does it look real, does it last?

    Writes report.json, report.md, report.html, sheets and clips into the output folder.  Stopped, it goes on where it
    was when the same command is run again.
    Example: reverie evaluate nano --data data/vizdoom-heldout --idm runs/idm-vizdoom -o runs/nano-report
    A rival: reverie evaluate bench/rivals/oasis.py:runs/oasis --data data/vizdoom-heldout -o runs/oasis-report
    In a scene: reverie evaluate nano --data data/level-heldout --scene scenes/level --quick -o runs/nano-level
    Side by side: reverie evaluate --merge runs/nano-report runs/oasis-report -o runs/both
    Which is better: reverie evaluate --ours runs/a/model --against nano --data data/heldout --blind -o runs/duel
    """

    model: tyro.conf.Positional[str] = "nano"
    """A bundled model's name, a model folder, or path/to/rival.py:FOLDER."""

    data: tuple[Path, ...] = ()
    """Held-out recordings, one dataset folder for each game."""

    idm: tuple[Path, ...] = ()
    """Inverse-dynamics models of those games (`reverie train idm`), which name the actions that a video shows."""

    scene: tuple[str, ...] = ()
    """Scenes of the recorded places, by name or folder, one for each recording: the model is measured in the scene and
    from one image, beside the memory alone, in place of everything else."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder of the report.  Default: runs/evaluate/MODEL."""

    starts: int | None = None
    """Start frames of the 4 s rollouts.  Default: 20, quick 4."""

    long_s: int | None = None
    """Seconds of the long rollouts, play and standing still.  Default: 60, quick 20."""

    quick: bool = False
    """A short look (3 minutes on two cores): for the shape of things, not for a model card."""

    suite: str | None = None
    """Also measure a published suite of actions: gameworld-76, driving, running, or the path of a JSON file."""

    bench: Path | None = None
    """Speed from the output of `reverie bench --json`, in place of a short run."""

    merge: tuple[Path, ...] = ()
    """Make one page of finished reports, side by side, and nothing else."""

    ours: str | None = None
    """Compare this model, or finished report, with `--against` on the same starts and actions."""

    against: str | None = None
    """The other one."""

    blind: bool = False
    """With --ours and --against: also a page on which a person votes without knowing which is which."""

    any_split: bool = False
    """Take a recording without held-out episodes: the figures may be on what the model was trained on."""

    seed: int = 0
    """Chooses the starts and the rollouts' noise."""

    videos: bool = True
    """Write clips as MP4, the keys drawn below."""

    fov_deg: float = 105.4
    """Horizontal field of view of the frames, for recordings that do not state it (VizDoom as recorded here: 105.4)."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    dtype: str = "auto"
    """auto, float32 or bfloat16."""

    def __post_init__(self) -> None:
        if self.starts is not None and not 1 <= self.starts <= 10_000:
            raise DataError(f"--starts must lie in 1 to 10000, got {self.starts}")
        if not 1 <= self.fov_deg <= 179:
            raise DataError(f"--fov-deg must lie in 1 to 179 degrees, got {self.fov_deg:g}")
        if (self.ours is None) != (self.against is None):
            raise DataError("a comparison takes both --ours A and --against B")
        if self.blind and self.ours is None:
            raise DataError("--blind compares two models: say --ours A --against B too")
        if self.scene and len(self.scene) != len(self.data):
            raise DataError(f"--scene takes one scene for each --data, got {len(self.scene)} for {len(self.data)}")
        if self.scene and self.suite is not None:
            raise DataError("--suite is measured from images: leave --scene out, or --suite")
        if self.merge and (self.output is None or self.ours is not None):
            raise DataError("--merge takes finished reports and -o FOLDER for the page, and no --ours")
        if not (self.merge or self.data or self._both_done()):
            raise DataError(
                "say which held-out recording to measure on: --data DIR (`reverie record vizdoom --heldout -o DIR` "
                "makes one)"
            )

    def _both_done(self) -> bool:
        sides = (self.ours, self.against)
        return all(side is not None and (Path(side) / "report.json").is_file() for side in sides)

    def run(self) -> None:
        evaluate(self)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Do what is asked; returns the report, the merged reports by name, or the comparison."""
    from reverie.evaluate import merge, paired, run

    if config.merge:
        return merge.merge(config.merge, _output(config))
    if config.ours is not None and config.against is not None:
        return paired.duel(config, config.ours, config.against)
    return run.run(config)


def _output(config: EvaluateConfig) -> Path:
    assert config.output is not None, "checked by the config"
    return config.output
