"""The command line: one command, `reverie`.

Each subcommand is a function of a frozen dataclass of options: `reverie train world` is `train_world` in
`reverie.cli.train`, one file for each first word.  They are imported when they are asked for, so `reverie --help` needs
neither torch nor a web server.  Nothing below this package prints.
Exit codes: 0 done; 1 a bug of ours (of `data check`: episodes that are poor); 2 a mistake that can be put right, told
in one line; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from keyword import iskeyword
from typing import Any

from reverie.errors import ReverieError


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand: its words, one line of help, and where the dataclass of its options is, `module:class`."""

    name: str
    summary: str
    options: str

    def load(self) -> type[Any]:
        """Imports the dataclass of its options."""
        return _import(self.options)

    def verb(self) -> Callable[[Any], Any]:
        """Imports the function that does it: of `train world` it is `train_world` in `reverie.cli.train`."""
        module, function = self.name.split()[0], self.name.replace(" ", "_").replace("-", "_")
        suffix = "_" if iskeyword(module) else ""
        return _import(f"{__name__}.{module}{suffix}:{function}{suffix}")


COMMANDS = (
    Command("play", "play a dreamt world, or a real game, in the browser", "reverie.cli.play:PlayConfig"),
    Command("serve", "the same page for many players, without opening a browser", "reverie.cli.serve:ServeConfig"),
    Command("generate", "make a video of a picture and an action script", "reverie.cli.generate:GenerateConfig"),
    Command("replay", "make a video of a saved session, as it was played", "reverie.cli.replay:ReplayConfig"),
    Command(
        "record screen", "record any window while you play in it", "reverie.data.screen.recording:RecordScreenConfig"
    ),
    Command("record", "record a real game as a dataset", "reverie.data.record:RecordConfig"),
    Command("import", "bring in what others recorded", "reverie.data.importers.config:ImportConfig"),
    Command("data check", "find what is damaged or poor in a dataset", "reverie.cli.data:CheckConfig"),
    Command("data sheet", "draw a dataset's pictures with their keys", "reverie.cli.data:SheetConfig"),
    Command("data report", "tell what a dataset covers", "reverie.cli.data:ReportConfig"),
    Command("data pack", "write recordings with geometry as packs for training", "reverie.cli.data:PackConfig"),
    Command("data view", "open a recording in rerun's viewer", "reverie.cli.data:ViewConfig"),
    Command("data push", "push a recording to the Hugging Face Hub", "reverie.cli.data:PushDatasetConfig"),
    Command("data pull", "download a recording from the Hub", "reverie.cli.data:PullDatasetConfig"),
    Command("scene build", "build a scene from recordings", "reverie.cli.scene:BuildSceneConfig"),
    Command("scene ego-motion", "fit how one moves in a scene", "reverie.cli.scene:EgoMotionConfig"),
    Command("scene body", "record how the player looks in a scene", "reverie.cli.scene:BodyConfig"),
    Command("scene capture", "capture a scene of a game", "reverie.cli.scene:CaptureSceneConfig"),
    Command("scene check", "validate a scene and measure it", "reverie.cli.scene:CheckSceneConfig"),
    Command("scene list", "list the bundled scenes", "reverie.cli.scene:ListScenesConfig"),
    Command("scene push", "push a scene to the Hugging Face Hub", "reverie.cli.scene:PushSceneConfig"),
    Command("scene pull", "download a scene from the Hub", "reverie.cli.scene:PullSceneConfig"),
    Command("encode", "keep recordings as a tokenizer's latents", "reverie.cli.encode:EncodeConfig"),
    Command("train tokenizer", "train the video tokenizer", "reverie.train.tokenizer:TrainTokenizerConfig"),
    Command("train world", "train the world model", "reverie.train.world_options:TrainWorldConfig"),
    Command("train nano", "train nano, from recordings to a model folder", "reverie.cli.train:TrainNanoConfig"),
    Command("train geometry", "train a model's depth and ego-motion", "reverie.cli.train:TrainGeometryConfig"),
    Command("train idm", "train the model that names actions from pictures", "reverie.train.idm:TrainIdmConfig"),
    Command("train reward", "train a reward for dreams as environments", "reverie.train.reward:TrainRewardConfig"),
    Command("distill init", "make a few-step student of a teacher", "reverie.train.distill_init:DistillInitConfig"),
    Command("distill dmd", "teach a student under its own rollouts", "reverie.train.distill_dmd:DistillDmdConfig"),
    Command(
        "distill decoder",
        "train a faster decoder for a model's latents",
        "reverie.train.distill_decoder:DistillDecoderConfig",
    ),
    Command("evaluate", "measure how well a model obeys and lasts", "reverie.cli.evaluate:EvaluateConfig"),
    Command("bench train", "measure a training step", "reverie.bench.train_step:BenchTrainConfig"),
    Command("bench", "measure speed, latency and memory", "reverie.cli.bench:BenchConfig"),
    Command("convert", "turn published weights into a model folder", "reverie.cli.convert:ConvertConfig"),
    Command("export web", "write a page that plays a model without Python", "reverie.cli.export:ExportWebConfig"),
    Command("doctor", "tell what this machine has and how fast it is", "reverie.cli.doctor:DoctorConfig"),
    Command("models push", "push a model to the Hugging Face Hub", "reverie.cli.models:PushModelConfig"),
    Command("models pull", "download a model from the Hub", "reverie.cli.models:PullModelConfig"),
    Command("models", "list the bundled models and their figures", "reverie.cli.models:ModelsConfig"),
)


LONG_COMMANDS = ("train", "distill", "encode", "evaluate")
"""Commands that run for long beside other work, with large operations."""
MALLOC_HINTS = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Memory kept by glibc instead of being given back and faulted in again: training steps on a CPU run 25-30% faster."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.  `argv` defaults to the process's own arguments."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    _let_threads_sleep(args)
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # what Apple's GPU lacks runs on the CPU; before torch
    try:
        return _dispatch(args)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `reverie models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ReverieError as error:
        if debug:
            traceback.print_exc()
            return 2
        print(f"reverie: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Exception as error:
        if debug:
            traceback.print_exc()
            return 1
        first = (str(error).splitlines() or [""])[0]
        print(f"reverie: unexpected {type(error).__name__}: {first} (a bug; --debug shows where)", file=sys.stderr)
        return 1


def _let_threads_sleep(args: list[str]) -> None:
    """Makes idle OpenMP threads sleep after a fraction of a millisecond instead of spinning for several.

    Where a browser, a game or a second training shares the cores, spinning threads hold up the very one they wait for.
    Threads that sleep at once cost a small model's block a third of its speed (docs/LOG.md), a training nothing: its
    operations are long.  Must be said before torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        is_long = bool(args) and args[0] in LONG_COMMANDS
        os.environ.setdefault("GOMP_SPINCOUNT", "1000" if is_long else "10000")


def use_malloc_hints(device: str) -> None:
    """On a Linux CPU, start this command again with `MALLOC_HINTS` unless memory settings were chosen already.

    The hints are read by glibc at start-up only: the command must have done nothing yet.
    """
    from reverie.train.device import pick_device

    chosen = any(name in os.environ for name in MALLOC_HINTS)
    if chosen or not sys.platform.startswith("linux") or pick_device(device).type != "cpu":
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | MALLOC_HINTS)


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in {"-h", "--help", "help"}:
        print(_overview())
        return 0
    if args[0] == "--version":
        from reverie import __version__

        print(f"reverie {__version__}")
        return 0
    command, rest = _find(args)
    if command is None:
        return _unknown(args)
    return _run(command, rest)


def _find(args: list[str]) -> tuple[Command | None, list[str]]:
    """The command whose words open `args`, and what follows them."""
    for command in sorted(COMMANDS, key=lambda command: -len(command.name.split())):  # `record screen` before `record`
        words = command.name.split()
        if args[: len(words)] == words:
            return command, args[len(words) :]
    return None, args


def _run(command: Command, args: list[str]) -> int:
    config_class = command.load()
    description = inspect.cleandoc(config_class.__doc__ or command.summary)
    try:
        config = _parser()(config_class, prog=f"reverie {command.name}", description=description, args=args)
    except SystemExit as stop:  # the help (0) or what is wrong (2) has been printed
        return stop.code if isinstance(stop.code, int) else 2
    if command.name.startswith(("train ", "distill ")):
        use_malloc_hints(config.device)
    with _device_failures(command.name):
        result = command.verb()(config)
    return result if isinstance(result, int) else 0


def _device_failures(name: str) -> AbstractContextManager[None]:
    """Turns a GPU's failure into one line, in trainings and in what comes before them."""
    if not name.startswith(("train ", "distill ", "encode")):
        return nullcontext()
    from reverie.train.guards import device_failures

    return device_failures(f"in reverie {name}", "what was finished is kept")


def _import(place: str) -> Any:
    """Imports the name of a place `module:name`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _parser() -> Callable[..., Any]:
    """tyro's, or a plain one on a machine that has torch and little else."""
    try:
        import tyro
    except ModuleNotFoundError:
        from reverie.cli.plain import parse

        return parse
    return tyro.cli


def _unknown(args: list[str]) -> int:
    """Lists the commands of a group such as `reverie train`, or names the known ones; returns the exit code."""
    group = [command for command in COMMANDS if command.name.startswith(f"{args[0]} ")]
    asks_help = bool(group) and len(args) == 2 and args[1] in {"-h", "--help"}
    if asks_help:
        print(_table(group))
        return 0
    if group:
        choices = ", ".join(f"reverie {command.name}" for command in group)
        print(f"reverie: {args[0]} what? Say {choices}", file=sys.stderr)
    else:
        choices = ", ".join(dict.fromkeys(command.name.split()[0] for command in COMMANDS))
        print(f"reverie: unknown command {args[0]!r}; expected one of {choices}", file=sys.stderr)
    return 2


def _overview() -> str:
    return (
        "usage: reverie COMMAND [OPTIONS]\n\n"
        "One picture in, a world you walk through out.\n\n"
        f"{_table(COMMANDS)}\n\n"
        "  --help       after a command: its options, and an example\n"
        "  --debug      show the traceback of an error\n"
        "  --version    print the version\n\n"
        "example: reverie play"
    )


def _table(commands: Sequence[Command]) -> str:
    width = max(len(command.name) for command in commands)
    return "\n".join(f"  {command.name:<{width}}  {command.summary}" for command in commands)
