"""Settings of an evaluation (`EvaluationConfig`): options of `reverie evaluate`, each documented here alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from reverie.argument_markers import alias, positional


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """One model, the recordings that it is measured on, and how."""

    model: Annotated[str, positional()]
    """A bundled model's name, a model folder, or path/to/rival.py:FOLDER."""

    data: tuple[Path, ...]
    """Held-out recordings, one dataset folder for each game."""

    idm: tuple[Path, ...] = ()
    """Inverse-dynamics models of those games (`reverie train idm`), which name the actions that a video shows."""

    scene: tuple[str, ...] = ()
    """Scenes of the recorded places, by name or folder, one for each recording: the model is measured in the scene and
    from one image, beside the memory alone, in place of everything else."""

    output: Annotated[Path | None, alias("-o")] = None
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

    @property
    def folder(self) -> Path:
        """Folder of the report."""
        return self.output or Path("runs/evaluate") / Path(self.model).name
