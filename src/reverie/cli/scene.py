"""`reverie scene build | ego-motion | body | capture | check | list | push | pull`: scenes of recordings or games."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from reverie.argument_markers import alias, positional, repeated
from reverie.cli.pull_options import PullOptions
from reverie.errors import DataError
from reverie.hub.push_options import PushOptions

if TYPE_CHECKING:
    from reverie.scenes.assemble import Facts, LookRound
    from reverie.scenes.capture import CapturableWorld
    from reverie.scenes.ego_motion import EgoMotionNet
    from reverie.scenes.recorded_body import RecordedBody
    from reverie.scenes.recorded_ways import RecordedWays
    from reverie.scenes.recordings import Footage
    from reverie.scenes.scene import Head, Scene
    from reverie.train.spatial.ego_motion import Drift
    from reverie.types import ActionSpace

Output = Annotated[Path, alias("-o")]

MAX_EPOCHS = 100_000
BODY_FRAMES = 600
"""25 clips of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSceneConfig:
    """Build a scene from recordings with camera poses and depth, and measure it on play that was held out.

    A scene is one place: of recordings of several places, the one with the most frames is taken.

    Examples: reverie scene build recordings/vizdoom -o scenes/my-level
    reverie scene build recordings/vizdoom --look-round --keyframes 640 -o scenes/my-level
    """

    recordings: Annotated[tuple[Path, ...], positional()]
    """Folders of LeRobot datasets, of one game."""
    output: Output
    """The scene's folder."""
    keyframes: int = 400
    """The most keyframes."""
    starts: int = 6
    """Starts to choose from."""
    title: str | None = None
    """The scene's title; the place's name if left out."""
    place: str | None = None
    """The place (map) to build, where the recordings have several."""
    fov: float | None = None
    """Horizontal field of view in degrees, where the recordings do not hold it."""
    licence: str = "unknown"
    """The licence of the images."""
    seed: int = 0
    """Decides which episodes are held out, where none is marked."""
    look_round: bool = False
    """Open the game and look round where it was recorded, so that what nobody looked at is known too (city, temple,
    vizdoom and minetest)."""
    epochs: int = 40
    """Passes through the recorded walks to fit the scene's own ego-motion; with 0 one moves as the
    model has learnt."""
    body_frames: int = BODY_FRAMES
    """The most frames of the player's own body that are kept, of recordings with a mask of it for every frame
    (`reverie record --depth-every 1`)."""
    overwrite: bool = False
    """Replace a scene that is there."""


def scene_build(config: BuildSceneConfig) -> None:
    """Builds the scene and prints how well it covers held-out frames."""
    from reverie.scenes.assemble import Facts, build_scene, check_counts, coverage_of, make_keyframes
    from reverie.scenes.ground import find_ways
    from reverie.scenes.recordings import read_footage, read_poses
    from reverie.train.spatial.wall_check import has_walls, recorded_steps

    check_counts(config.keyframes, config.starts)
    _check_epochs(config.epochs, 0)
    _check_body_frames(config.body_frames)
    check_target(config.output, config.overwrite)
    with _progress() as report:
        footage = read_footage(
            config.recordings, config.place, config.fov, config.seed, lambda share, text: report(0.3 * share, text)
        )
        facts = Facts(
            title=config.title or footage.place or footage.game,
            game=footage.game,
            fov_deg=footage.fov_deg,
            pixel_aspect=footage.pixel_aspect,
            keys=footage.action_space.keys,
            mouse=footage.action_space.mouse,
            licence=config.licence,
        )
        with _looking_round(footage, facts) if config.look_round else nullcontext() as look:
            scene = build_scene(
                facts,
                footage.frames,
                config.keyframes,
                config.starts,
                lambda share, text: report(0.3 + 0.4 * share, text),
                look,
            )
        report(0.7, "measuring coverage of held-out frames")
        shown = make_keyframes(scene.colour, scene.depth, scene.hidden, scene.pose, facts.focal)
        covered = coverage_of(shown, footage.held_out, facts.focal)
        network, told = None, ""
        if config.epochs:
            report(0.8, "fitting ego-motion")
            network, told = _fit_ego_motion(config)
        report(0.95, "checking walls")
        walks = read_poses(config.recordings, footage.place, config.fov, config.seed)
        walls = has_walls(shown, facts.focal, recorded_steps([*walks[0], *walks[1]], config.seed))
        ways = None if facts.mouse else find_ways(shown.pose, *walks)
        report(0.97, "recording the player's body")
        body = _record_body(config.recordings, footage.place, config.fov, config.seed, config.body_frames)
        scene = replace(scene, ego_motion=network, walls=walls, ways=ways, body=body)
        scene.save(config.output)
    print(f"{config.output}: {summary(scene, config.output)}")
    print(f"held-out frames: {covered}{told}")
    if not scene.walls:
        print("recorded cameras went through surfaces, so none stops the camera here")
    if scene.ways is not None:
        print(_format_ways(scene.ways))
    if scene.body is not None:
        print(_format_body(scene.body))


def _fit_ego_motion(config: BuildSceneConfig) -> tuple[EgoMotionNet | None, str]:
    """The scene's own network, and a line about it; without one, a line that says why."""
    from reverie.train.spatial.walks import fit_ego_motion, read_walks

    try:
        walks = read_walks(config.recordings, config.fov, config.seed)
        network, drifts = fit_ego_motion(walks, config.epochs)
    except DataError as error:
        return None, f"\nno ego-motion of its own: {error}"
    return network, f"\nego-motion on held-out walks, after a second: {_format_drifts(drifts)}"


def _format_ways(ways: RecordedWays) -> str:
    low, high = float(ways.heading.min()), float(ways.heading.max())
    return (
        f"one stays within {ways.radius:.1f} m and {low:.0f} (in bends {high:.0f}) degrees of {len(ways.poses)} "
        "recorded poses"
    )


def _format_drifts(drifts: Mapping[str, Drift]) -> str:
    return "; ".join(map(str, drifts.values())) or "not measured, they are too short"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgoMotionConfig:
    """Fit a scene's own ego-motion to recordings of its place, so that one moves in it as one moves there.

    Where players keep to a track, the ways that recorded cameras went are found too: one stays on them.
    `reverie scene build` does so too; this does it again, or longer, or for a scene that was captured.

    Example: reverie scene ego-motion scenes/my-level recordings/vizdoom --epochs 400
    """

    scene: Annotated[Path, positional()]
    """The scene's folder; `ego-motion.safetensors` is written, and `ways.parquet` where players keep to a track."""
    recordings: Annotated[tuple[Path, ...], positional()]
    """Folders of LeRobot datasets, of that game, with camera poses and depth."""
    epochs: int = 40
    """Passes through the recorded walks."""
    place: str | None = None
    """The scene's place (map), where the recordings have several."""
    fov: float | None = None
    """Horizontal field of view in degrees, where the recordings do not hold it."""
    seed: int = 0
    """Decides which episodes are held out, where none is marked."""


def scene_ego_motion(config: EgoMotionConfig) -> None:
    """Fits the network, writes it beside the scene and prints how far it leads the camera astray."""
    from reverie.scenes.ego_motion import write_network
    from reverie.scenes.ground import find_ways
    from reverie.scenes.recorded_ways import write_ways
    from reverie.scenes.recordings import read_poses
    from reverie.scenes.scene import read_head, read_keyframe_poses
    from reverie.train.spatial.walks import fit_ego_motion, read_walks

    _check_epochs(config.epochs, 1)
    head = read_head(config.scene)
    walks = read_walks(config.recordings, config.fov, config.seed)
    _check_controls(head, walks.action_space)
    ways = None
    if not head.mouse:
        poses = read_poses(config.recordings, config.place, config.fov, config.seed)
        ways = find_ways(read_keyframe_poses(config.scene), *poses)
    network, drifts = fit_ego_motion(walks, config.epochs)
    write_network(config.scene, network)
    write_ways(config.scene, ways)
    print(f"{config.scene}, on held-out walks, after a second: {_format_drifts(drifts)}")
    if ways is not None:
        print(_format_ways(ways))


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyConfig:
    """Record how the player's own body looks in a scene, so that who is seen from behind is seen all the time.

    Clips of it are taken from recordings with a mask of the body for every frame (`reverie record --depth-every 1`);
    in play the one is shown whose last second is most like the player's.  `reverie scene build` does so too.

    Example: reverie scene body scenes/my-track recordings/temple --frames 1200
    """

    scene: Annotated[Path, positional()]
    """The scene's folder; `body.parquet` is written."""
    recordings: Annotated[tuple[Path, ...], positional()]
    """Folders of LeRobot datasets, of that game."""
    frames: int = BODY_FRAMES
    """The most frames that are kept, about a kilobyte each."""
    place: str | None = None
    """The scene's place (map), where the recordings have several."""
    fov: float | None = None
    """Horizontal field of view in degrees, where the recordings do not hold it."""
    seed: int = 0
    """Decides which episodes are held out, where none is marked."""


def scene_body(config: BodyConfig) -> None:
    """Writes the body beside the scene and prints how large it is."""
    from reverie.scenes.recorded_body import write_body
    from reverie.scenes.recordings import open_recordings
    from reverie.scenes.scene import read_head

    _check_body_frames(config.frames)
    head = read_head(config.scene)
    _check_controls(head, open_recordings(config.recordings, config.fov)[0][0].action_space)
    body = _record_body(config.recordings, config.place, config.fov, config.seed, config.frames)
    if body is None:
        raise DataError(
            "no body of a player is seen in these recordings in every frame; of a game that shows one, record with "
            "--depth-every 1"
        )
    write_body(config.scene, body)
    print(f"{config.scene}: {_format_body(body)}")


def _record_body(
    recordings: tuple[Path, ...], place: str | None, fov: float | None, seed: int, num_frames: int
) -> RecordedBody | None:
    from reverie.scenes.recorded_body import record_body
    from reverie.scenes.recordings import read_body_walks

    return record_body(read_body_walks(recordings, place, fov, seed), num_frames)


def _format_body(body: RecordedBody) -> str:
    return f"the player's body in {len(body.image)} frames"


def _check_body_frames(frames: int) -> None:
    from reverie.scenes.image_rows import MAX_ROWS
    from reverie.scenes.recorded_body import CLIP_FRAMES

    if not CLIP_FRAMES <= frames <= MAX_ROWS:
        raise DataError(f"frames of the player's body must be {CLIP_FRAMES} to {MAX_ROWS}, got {frames}")


def _check_controls(head: Head, space: ActionSpace) -> None:
    """Raises DataError for recordings of a game with other controls than the scene's."""
    from reverie.types import ActionSpace

    if space != (own := ActionSpace(head.keys, head.mouse)):
        raise DataError(
            f"the recordings are of a game with {', '.join(space.names)}, the scene of one with "
            f"{', '.join(own.names)}; take recordings of the scene's game"
        )


def _check_epochs(epochs: int, low: int) -> None:
    if not low <= epochs <= MAX_EPOCHS:
        raise DataError(f"--epochs must be {low} to {MAX_EPOCHS}, got {epochs}")


@contextmanager
def _looking_round(footage: Footage, facts: Facts) -> Iterator[LookRound]:
    """Opens the recorded game at the recorded place, for `build_scene`."""
    from reverie.scenes.capture import look_round

    if footage.seed is None:
        raise DataError("these recordings do not say which episode of the game they are of; leave out --look-round")
    with _explorable(footage.game, footage.options, footage.seed) as world:
        if world.map != footage.map:
            raise DataError(f"{footage.game} opens {world.map} now, not the recorded {footage.map}; record it again")
        yield partial(look_round, world, facts, footage.frames)


@contextmanager
def _explorable(game: str, options: Mapping[str, Any], seed: int) -> Iterator[CapturableWorld]:
    """A game at the place of the episode `seed`.  Raises DataError for one that cannot be looked at from anywhere."""
    from reverie.scenes.capture import require_explorable
    from reverie.worlds import open_world

    opened = open_world(game, **options)
    try:
        opened.reset(seed)
        yield require_explorable(opened, game)
    finally:
        opened.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSceneConfig:
    """Capture a scene of a game that can be looked at from anywhere: city, temple, vizdoom or minetest.

    The place round the start of episode `seed` is visited on a grid, six directions level and six looking up, without
    players and traffic.  It ends when coverage no longer grows.

    Example: reverie scene capture city --step 3.5 --reach 32 --set view=walk -o scenes/my-corner
    """

    game: Annotated[str, positional()]
    """The game's name."""
    output: Output
    """The scene's folder."""
    step: float = 3.5
    """Metres between standpoints."""
    reach: float = 24.0
    """Metres to the farthest standpoint, in both directions."""
    keyframes: int = 800
    """The most keyframes."""
    starts: int = 6
    """Starts to choose from."""
    title: str | None = None
    """The scene's title; the map's name if left out."""
    licence: str = "unknown"
    """The licence of the images."""
    seed: int = 0
    """The episode whose place is captured."""
    set: Annotated[tuple[str, ...], repeated()] = ()
    """An option of the game, KEY=VALUE, such as view=walk; can be given several times."""
    overwrite: bool = False
    """Replace a scene that is there."""


def scene_capture(config: CaptureSceneConfig) -> None:
    """Captures the scene and prints what was visited."""
    from reverie.data.game_options import parse_options
    from reverie.scenes.assemble import Facts, check_counts, describe
    from reverie.scenes.capture import capture_scene
    from reverie.worlds import world_info

    check_counts(config.keyframes, config.starts)
    if not (config.step > 0 and config.reach > 0):
        raise DataError(f"--step and --reach must be positive metres, got {config.step:g} and {config.reach:g}")
    check_target(config.output, config.overwrite)
    options = parse_options(world_info(config.game), config.set)
    with _explorable(config.game, options, config.seed) as world:
        facts = Facts(
            title=config.title or world.map or config.game,
            game=config.game,
            fov_deg=float(world.fov_deg),
            pixel_aspect=float(world.pixel_aspect),
            keys=world.action_space.keys,
            mouse=world.action_space.mouse,
            licence=config.licence,
        )
        with _progress() as report:
            found = capture_scene(
                world,
                facts,
                step_m=config.step,
                reach_m=config.reach,
                keyframes=config.keyframes,
                starts=config.starts,
                seed=config.seed,
                report=report,
            )
            found.scene.save(config.output)
    visited, total = found.standpoints
    print(f"{config.output}: {summary(found.scene, config.output)}")
    print(f"{visited} of {total} standpoints visited; views between them: {describe(found.coverage)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSceneConfig:
    """Read a scene, and show each of some keyframes by the others.

    Example: reverie scene check scenes/my-level
    """

    scene: Annotated[str, positional()]
    """The scene's folder, or a bundled scene's name."""


def scene_check(config: CheckSceneConfig) -> None:
    """Prints the scene and how well its keyframes show each other."""
    import torch

    from reverie.engine.loading.scenes import find_scene
    from reverie.scenes.assemble import describe, make_keyframes, measure_itself
    from reverie.scenes.scene import Scene
    from reverie.vision.projection import focal_lengths

    folder = find_scene(config.scene)
    scene = Scene.load(folder)
    focal = focal_lengths(torch.tensor([scene.fov_deg]), scene.pixel_aspect)[0]
    print(f"{folder}: {summary(scene, folder)}")
    keyframes = make_keyframes(scene.colour, scene.depth, scene.hidden, scene.pose, focal)
    print(f"keyframes, each by the others: {describe(measure_itself(keyframes, focal))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListScenesConfig:
    """List the bundled scenes.

    Examples: reverie scene list;  reverie scene list --json
    """

    json: bool = False
    """Print all that is known of them as JSON."""


def scene_list(config: ListScenesConfig) -> None:
    """Prints a line a scene, or JSON."""
    from reverie.engine.loading.scenes import bundled_scenes

    facts = [facts_of(folder) for folder in bundled_scenes()]
    if config.json:
        print(json.dumps(facts, indent=1))
        return
    if not facts:
        print("no scenes are bundled; build one with `reverie scene build` or `reverie scene capture`")
    width = max((len(one["name"]) for one in facts), default=0)
    for one in facts:
        print(
            f"{one['name']:<{width}}  {one['title']} ({one['game']}), {len(one['starts'])} starts,"
            f" {one['keyframes']} keyframes, {one['mebibytes']:.1f} MiB"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PushSceneConfig(PushOptions):
    """Push a scene to the Hugging Face Hub, in one commit, with a card.

    Log in first, with `hf auth login` or HF_TOKEN.

    Example: reverie scene push scenes/my-level somebody/my-level
    """

    scene: Annotated[Path, positional()]
    """The scene's folder."""
    repository: Annotated[str, positional()]
    """OWNER/NAME; made if it is not there."""


def scene_push(config: PushSceneConfig) -> None:
    """Pushes the scene and prints its address."""
    from reverie.scenes.hub import push_scene

    print(push_scene(config.scene, config.repository, config))


@dataclass(frozen=True, kw_only=True, slots=True)
class PullSceneConfig(PullOptions):
    """Download a scene from the Hugging Face Hub into a folder.

    Example: reverie scene pull somebody/my-level -o scenes/my-level
    """


def scene_pull(config: PullSceneConfig) -> None:
    """Downloads the scene and prints its folder."""
    from reverie.scenes.hub import pull_scene

    print(pull_scene(config.repository, config.output, revision=config.revision))


def facts_of(folder: Path) -> dict[str, Any]:
    """A scene's facts as `scene list --json` prints them, without reading its keyframes."""
    from reverie.scenes.scene import read_scene_json

    raw = read_scene_json(folder)
    kept = ("title", "game", "fov_deg", "pixel_aspect", "keys", "mouse", "licence")
    return {
        "name": folder.name,
        "folder": str(folder),
        **{name: raw.get(name) for name in kept},
        "starts": [start.get("title") for start in raw.get("starts", [])],
        "keyframes": _count_keyframes(folder),
        "mebibytes": round(size_mib(folder), 2),
    }


def _count_keyframes(folder: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from reverie.paths import local_path
    from reverie.scenes.scene import KEYFRAMES

    try:
        return pq.read_metadata(local_path(folder / KEYFRAMES)).num_rows
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{folder / KEYFRAMES}: not readable as keyframes ({error}); build the scene again") from error


def summary(scene: Scene, folder: Path) -> str:
    """A scene in one line."""
    height, width = scene.resolution
    return (
        f"{scene.title} ({scene.game}): {len(scene)} keyframes of {width}x{height}, {len(scene.starts)} starts, "
        f"{size_mib(folder):.1f} MiB"
    )


def size_mib(folder: Path) -> float:
    """The size of a scene's files."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 2**20


def check_target(folder: Path, overwrite: bool) -> None:
    """Raises DataError for a folder that a scene cannot be written to."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; name a folder for the scene with -o")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "scene.json").is_file():
            raise DataError(f"{folder} has other files in it; name a new folder for the scene with -o")
        if not overwrite:
            raise DataError(f"{folder} has a scene already; name another folder, or replace it with --overwrite")


@contextmanager
def _progress() -> Iterator[Callable[[float, str], None]]:
    """Shows a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, text: bar.update(task, completed=share, description=text)
