"""`reverie export web`: a page that plays a model without Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from reverie.argument_markers import alias, positional


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportWebConfig:
    """Write a static folder that plays a model in the browser, with no Python: on WebGPU where there is one, else in
    WebAssembly.  Any web server can offer it, from any path; after the first visit it works offline.

    Example: reverie export web nano -o site, then: python -m http.server -d site
    """

    model: Annotated[str, positional()] = "nano"
    """A bundled model's name, a model folder, or a hub id; of a model with a spatial memory."""
    output: Annotated[Path, alias("-o")]
    """The folder to write; an earlier export there is replaced."""
    scene: str | None = None
    """A scene that the page begins in: a bundled one's name, or a folder that `reverie scene build` has made."""
    scenes: tuple[str, ...] | None = None
    """Names of the bundled scenes to take along; all of them if left out."""
    runtime: Path | None = None
    """The archive of onnxruntime-web, where npm cannot fetch it."""


def export_web(config: ExportWebConfig) -> None:
    """Writes the page and prints its size."""
    from rich.console import Console

    from reverie.export.web import check_packages, check_target, export_web

    check_packages()
    check_target(config.output)
    from reverie.engine.engine import load

    console = Console(stderr=True)
    with console.status("loading the model") as status:
        engine = load(config.model, device="cpu", dtype="float32")
        num_bytes = export_web(
            engine,
            config.output,
            scene=config.scene,
            scenes=config.scenes,
            archive=config.runtime,
            tell=lambda share, text: status.update(f"{share:.0%}  {text}"),
        )
    console.print(f"{config.output} weighs {num_bytes / 2**20:.1f} MiB; python -m http.server -d {config.output}")
