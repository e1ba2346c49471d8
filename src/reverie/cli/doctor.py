"""`reverie doctor`: what this machine has, and how fast it is."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from reverie.engine.loading.models import bundled_models
from reverie.errors import CheckpointError
from reverie.worlds import PIP, WORLDS, install_command, missing

EXTRAS = {
    "reverie_worlds": f"play and record real games: {PIP}",
    "ray": 'record on many machines: pip install "reverie-world[cluster]"',
    "rerun": 'look at recordings in 3D: pip install "reverie-world[viewer]"',
    "torchmetrics": 'measure LPIPS: pip install "reverie-world[metrics]"',
    "tensorboard": 'watch a training: pip install "reverie-world[train]"',
}
"""Optional packages, and what each is for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig:
    """Report this machine's hardware and its speed; the first thing to quote in a bug report.

    With --model it reports instead the memory that the model needs here, and the preset to use; nothing is fetched.

    Examples: reverie doctor;  reverie doctor --model matrix-game-2 --preset 8gb
    """

    model: str | None = None
    """A model to look at: matrix-game-2 (its published sizes), a bundled model's name, or a folder."""
    variant: str | None = None
    """Variant of Matrix-Game 2.0: universal, gta or templerun."""
    decoder: str = "auto"
    """full, or tiny where the model has one; auto takes the preset's, else full."""
    preset: str | None = None
    """Memory preset of Matrix-Game 2.0: 24gb, 12gb, 8gb or fast."""
    weights: str = "auto"
    """Weights of the transformer: full, int8, int4 or fp8; auto takes the preset's, else full."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: str = "auto"
    """auto, float32 or bfloat16."""


def doctor(config: DoctorConfig) -> None:
    """Prints what this machine has, or what a model needs of it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    with console.status("looking" if config.model else "measuring"):
        rows = (
            model_needs(config)
            if config.model
            else [*software(), *hardware(), *speeds(), *games(), *extras(), *models()]
        )
    table = Table(show_header=False, box=None)
    for name, value in rows:
        table.add_row(f"[bold]{name}[/bold]", escape(value))
    console.print(table)


Rows = list[tuple[str, str]]


def model_needs(config: DoctorConfig) -> Rows:
    """Estimates the memory that one model needs here.  Raises DeviceError if the machine cannot run it, CheckpointError
    if it is missing."""
    from reverie.engine.loading import device, hardware_check, memory_estimate, presets
    from reverie.engine.loading.models import find_model
    from reverie.engine.loading.random_weights import NAMES, matrix_game_2
    from reverie.engine.loading.source import open_source

    settings = presets.settings(config.preset, config.dtype, config.decoder, config.weights)
    target = device.pick_device(config.device)
    files: tuple[Path, ...] = ()
    if config.model in NAMES:
        model = matrix_game_2(config.variant)
    else:
        if "/" in str(config.model) and not Path(str(config.model)).exists():
            raise CheckpointError(f"there is no folder {config.model!r}; the doctor fetches nothing from the hub")
        source = open_source(find_model(str(config.model)), config.variant)
        model, files = source.config, source.files
    dtype = device.pick_dtype(settings.dtype, target)
    found = hardware_check.read_machine(target)
    hardware_check.check(model, settings, dtype, found)
    need = memory_estimate.needed(model, settings, dtype, found.device_type)
    rows = [
        ("model", f"{model.name}, {model.resolution[0]}x{model.resolution[1]}"),
        ("device", str(found)),
        ("numbers", str(dtype).removeprefix("torch.")),
        ("to read", _gib_of(files) if files else "unknown: no files here"),
        *memory_estimate.rows(need),
    ]
    if not hardware_check.is_matrix_game(model):
        return rows
    fitting = memory_estimate.fitting(model, found.free_bytes, found.device_type)
    return [*rows, ("preset to use", fitting or "none fits")]


def _gib_of(files: tuple[Path, ...]) -> str:
    from reverie.engine.loading import memory_estimate

    return memory_estimate.gib(sum(file.stat().st_size for file in files))


def software() -> Rows:
    import torch

    from reverie import __version__

    return [
        ("reverie", f"{__version__}, {Path(__file__).parent.parent}"),
        ("python", f"{platform.python_version()}, {sys.executable}"),
        ("system", platform.platform()),
        ("torch", f"{torch.__version__}, {'CUDA ' + torch.version.cuda if torch.version.cuda else 'without CUDA'}"),
    ]


def hardware() -> Rows:
    import torch

    from reverie import hardware as machine

    rows = [
        ("processor", machine.cpu_name()),
        ("cores", f"{machine.num_cores()} to use; torch starts with {torch.get_num_threads()} threads"),
        (
            "instructions",
            f"{', '.join(machine.instruction_sets()) or 'unknown'}; {torch.backends.cpu.get_cpu_capability()}",
        ),
        ("memory free", f"{machine.memory_free_mib():,.0f} MiB"),
    ]
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        rows.append((f"cuda:{index}", f"{gpu.name}, {gpu.total_memory / 2**20:,.0f} MiB"))
    return rows if torch.cuda.device_count() else [*rows, ("cuda", "none")]


def speeds() -> Rows:
    """Matrix products in each number type, and which one `--dtype auto` takes."""
    from reverie.engine.loading import device
    from reverie.hardware import measure_matmul_gflops

    device.set_threads()
    target = device.pick_device("auto")
    speed = {
        name: measure_matmul_gflops(dtype, target)
        for name, dtype in device.DTYPES.items()
        if name != "float16" or target.type == "cuda"
    }
    picked = str(device.pick_dtype("auto", target)).removeprefix("torch.")
    figures = ", ".join(f"{name} {gflops:,.0f} GFLOP/s" for name, gflops in speed.items())
    return [(f"speed on {target}", f"{figures}; auto takes {picked}")]


def games() -> Rows:
    """Lists the games that can be played and recorded, and the one command that installs the rest."""
    rows = []
    for info in WORLDS.values():
        lacks = missing(info)
        rows.append((info.name, f"missing {', '.join(lacks)}" if lacks else f"ready: {info.summary}"))
    command = install_command(WORLDS.values())
    return [*rows, ("to install them", command)] if command else rows


def extras() -> Rows:
    rows = []
    for name, purpose in EXTRAS.items():
        if find_spec(name) is not None:
            rows.append((name, _version(name)))
        else:
            rows.append((name, f"missing; to {purpose}"))
    return [
        *rows,
        ("chromium", chromium() or "missing; only the page's own tests need it: playwright install chromium"),
    ]


def chromium() -> str | None:
    """Finds a Chromium that can run the page's tests; returns its path, or None."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    caches = [Path.home() / ".cache/ms-playwright", Path.home() / "Library/Caches/ms-playwright"]
    found = sorted(folder for cache in caches for folder in cache.glob("chromium*"))
    return str(found[-1]) if found else None


def models() -> Rows:
    bundled = bundled_models()
    if not bundled:
        return [("models", "none bundled")]
    return [("models", ", ".join(f"{model.name} ({model.size_mib:.0f} MiB)" for model in bundled))]


def _version(name: str) -> str:
    for distribution in importlib.metadata.packages_distributions().get(name, []):
        return importlib.metadata.version(distribution)
    return "present"
