"""Going back: any frame of the past returns bit for bit, in bounded memory; files that generate a session again."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.small_model import small_engine
from tests.helpers.yard_scene import save_yard_scene

import reverie
from reverie import cli
from reverie.engine.engine import Engine
from reverie.engine.loading.scenes import bundled_scenes
from reverie.engine.media.video import read_frames, read_log
from reverie.engine.sessions.batch import make_blocks
from reverie.engine.sessions.chunks import CHUNK_BYTES, ChunkFile
from reverie.engine.sessions.history import SnapshotHistory
from reverie.engine.sessions.session import Snapshot
from reverie.engine.sessions.session_file import SessionFile, hash_frame, open_session
from reverie.engine.sessions.timeline import Timeline, blocks_of
from reverie.errors import CheckpointError, DataError, ShapeError
from reverie.models.presets import tiny_memory
from reverie.types import Action

WALK = [Action(frozenset(keys), (0.0, yaw)) for keys, yaw in (({"forward"}, 0), ((), 2.5), ({"left"}, -1.25), ((), 0))]


@pytest.fixture(scope="module")
def memory_engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return small_engine(tmp_path_factory.mktemp("models") / "tiny-memory", tiny_memory())


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, memory_engine: Engine) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "alley"
    save_yard_scene(folder, memory_engine.resolution, memory_engine.action_space.keys)
    return folder


def walk(timeline: Timeline, num_blocks: int) -> dict[int, np.ndarray]:
    """Plays on; the last frame of each block, by its number."""
    seen = {}
    for block in range(num_blocks):
        frames = timeline.step(WALK[block % len(WALK)])
        seen[timeline.frame] = frames[-1]
    return seen


@pytest.mark.parametrize("kind", ["image", "scene"])
def test_every_frame_of_the_past_returns_bit_for_bit(engine, memory_engine, scene, picture, kind: str) -> None:
    session = engine.open(picture, seed=3) if kind == "image" else memory_engine.open(seed=3, scene=scene, start=1)
    timeline = Timeline(session, snapshot_s=0.4)
    seen = walk(timeline, 20)
    assert (timeline.earliest, timeline.last) == (1, 81)
    order = np.random.default_rng(0).permutation(list(seen))
    for frame in [*order, 81, 5, 9, 13]:
        assert np.array_equal(timeline.seek(int(frame))[-1], seen[frame]), frame
        assert timeline.frame == frame
        assert np.array_equal(timeline.shown[0], seen[frame])
    assert np.array_equal(timeline.seek(1)[0], session.first_frame[0])
    assert np.array_equal(timeline.seek(10)[-1], seen[13]), "the block that shows the frame"
    assert np.array_equal(timeline.seek(10**6)[-1], seen[81])


def test_playing_on_from_the_past_drops_the_future(engine, picture) -> None:
    timeline, twin = (Timeline(engine.open(picture, seed=3), snapshot_s=0.4) for _ in range(2))
    walk(timeline, 12)
    before = walk(twin, 5)
    timeline.seek(21)
    assert (timeline.frame, timeline.last) == (21, 49)
    for _ in range(9):
        assert np.array_equal(timeline.step(WALK[1]), twin.step(WALK[1]))
    assert timeline.last == twin.last == 57
    assert np.array_equal(timeline.seek(17)[-1], before[17])
    assert np.array_equal(timeline.seek(53), twin.seek(53))


def test_only_the_last_minutes_are_kept_and_the_memory_is_bounded(engine, picture) -> None:
    timeline = Timeline(engine.open(picture), rewind_s=2.0, snapshot_s=0.4)
    seen = walk(timeline, 40)
    assert 161 - 50 - 12 <= timeline.earliest <= 161 - 50 + 4
    for frame in range(timeline.earliest, 162, 4):
        assert np.array_equal(timeline.seek(frame)[-1], seen[frame])
    assert timeline.seek(1).shape == (4, 32, 64, 3)
    assert timeline.frame == timeline.earliest

    once = Timeline(engine.open(picture)).num_bytes
    thin = Timeline(engine.open(picture), snapshot_s=0.1, max_bytes=6 * once)
    seen = walk(thin, 40)
    assert thin.num_bytes <= 6 * once
    assert thin.earliest == 1
    for frame in (5, 77, 161, 41):
        assert np.array_equal(thin.seek(frame)[-1], seen[frame])


def test_memory_is_flat_over_many_rewinds(engine, picture) -> None:
    timeline = Timeline(engine.open(picture), rewind_s=1.0, snapshot_s=0.4)
    walk(timeline, 20)
    sizes = []
    for number in range(60):
        timeline.seek(timeline.last - 4 * (number % 6))
        timeline.step(Action())
        timeline.step(Action())
        sizes.append(timeline.num_bytes)
    assert max(sizes[30:]) <= max(sizes[:30])


@pytest.mark.parametrize("kind", ["image", "scene"])
def test_what_was_played_in_a_batch_returns_bit_for_bit(engine, memory_engine, scene, picture, kind: str) -> None:
    """Also where the batch's last bits are not those of a session that plays alone."""
    owner = engine if kind == "image" else memory_engine
    opening = {"image": picture} if kind == "image" else {"scene": scene, "start": 1}
    timelines = [Timeline(owner.open(seed=seed, **opening), snapshot_s=0.6) for seed in range(3)]
    seen: list[dict[int, np.ndarray]] = [{} for _ in timelines]
    for block in range(12):
        actions = [WALK[(block + i) % len(WALK)] for i in range(3)]
        made = make_blocks([timeline.session for timeline in timelines], actions)
        for i, (timeline, frames) in enumerate(zip(timelines, made, strict=True)):
            assert isinstance(frames, np.ndarray), frames
            timeline.played(actions[i], frames)
            seen[i][timeline.frame] = frames[-1]
    timelines[1].seek(29)
    again = timelines[1].step(WALK[0])  # alone, from a past that was made together
    assert timelines[1].last == 33
    seen[1] = {frame: shown for frame, shown in seen[1].items() if frame <= 29} | {33: again[-1]}
    for timeline, shown in zip(timelines, seen, strict=True):
        for frame in np.random.default_rng(0).permutation(list(shown)):
            assert np.array_equal(timeline.seek(int(frame))[-1], shown[frame]), frame


def test_going_back_makes_few_blocks_again_and_denoises_none(engine, picture, monkeypatch) -> None:
    timeline = Timeline(engine.open(picture))
    seen = walk(timeline, 30)
    passes: list[bool] = []
    forward = engine.bundle.model.forward

    def counted(*args: object, **options: object) -> torch.Tensor:
        passes.append(bool(options.get("commit", False)))
        return forward(*args, **options)

    monkeypatch.setattr(engine.bundle.model, "forward", counted)
    for frame in seen:
        passes.clear()
        timeline.seek(frame)
        assert passes == [True] * len(passes)
        assert len(passes) <= 4, "0.64 s at most"
        timeline.seek(1)
    timeline.seek(121)
    passes.clear()
    timeline.step(Action())
    assert passes == [False, False, True], "a new block is denoised"


@pytest.mark.parametrize("room", [0, 40])
def test_where_the_disk_is_full_it_goes_back_all_the_same(engine, picture, monkeypatch, room: int) -> None:
    """room: chunks that the disk takes."""
    monkeypatch.setattr(
        "reverie.engine.sessions.history.WITHOUT_DISK_BYTES", 3 * Timeline(engine.open(picture)).num_bytes
    )
    write, written = ChunkFile._write, []

    def write_some(self: ChunkFile, place: int, chunks: np.ndarray) -> None:
        if place + len(chunks) > room:
            raise OSError(28, "No space left on device")
        written.extend(range(place, place + len(chunks)))
        write(self, place, chunks)

    monkeypatch.setattr(ChunkFile, "_write", write_some)
    timeline = Timeline(engine.open(picture), snapshot_s=0.3)
    sizes, seen = [], {}
    for _ in range(8):
        seen |= walk(timeline, 4)
        sizes.append(timeline.num_bytes)
    assert sizes[-1] <= max(sizes[0], 3 * Timeline(engine.open(picture)).num_bytes)
    assert set(written) <= set(range(room))
    assert bool(written) == (room > 0)
    assert timeline.earliest == 1
    for frame in (5, 77, 129, 41):
        assert np.array_equal(timeline.seek(frame)[-1], seen[frame])


def test_the_file_of_snapshots_stays_as_large_as_it_is(engine, picture) -> None:
    timeline = Timeline(engine.open(picture), rewind_s=1.0, snapshot_s=0.3)
    walk(timeline, 20)
    file = timeline._history._file
    places = file.num_places
    twin = timeline.fork()
    for number in range(20):
        timeline.seek(timeline.last - 4 * (number % 6))
        walk(timeline, 2)
    assert np.array_equal(twin.seek(77), twin.seek(77))
    twin.close()
    walk(timeline, 10)
    assert file.num_places <= 2 * places, "places of dropped snapshots are used again"
    timeline.close()
    assert file.free_places().tolist() == list(range(file.num_places))


def test_snapshots_of_many_changes_return_to_the_bit_while_the_file_is_used_again() -> None:
    """Odd sizes, numbers that are not equal to themselves, and places that are dropped, in threads of their own."""
    rng = np.random.default_rng(0)
    state = {"a": torch.zeros(40, CHUNK_BYTES, dtype=torch.uint8), "b": torch.zeros(5001), "c": torch.tensor(torch.nan)}

    def play(history: SnapshotHistory, first: int, num: int, rng: np.random.Generator) -> None:
        own, truth = {name: tensor.clone() for name, tensor in state.items()}, {}
        for frame in range(first, first + num):
            own["a"][int(rng.integers(40)), int(rng.integers(CHUNK_BYTES))] += 1
            own["b"][int(rng.integers(5001))] += 1
            picture = np.zeros((2, 2, 3), np.uint8)
            history.add(Snapshot(model="m", seed=0, num_frames=frame, picture=picture, tensors=own, numbers={}))
            truth[frame] = {name: tensor.clone() for name, tensor in own.items()}
            history.drop_before(frame - 20)
            found = history.before(int(rng.integers(max(history.frames[0], first), frame + 1)) + 1)
            assert found is not None
            for name, tensor in found.tensors.items():
                assert torch.equal(tensor.nan_to_num(9), truth[found.num_frames][name].nan_to_num(9)), (frame, name)

    history = SnapshotHistory(2**40)
    play(history, 1, 60, rng)
    twins = [history.copy() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(play, twin, 100, 60, np.random.default_rng(i)) for i, twin in enumerate(twins)]:
            done.result()
    assert history._file.num_places < 600, "places of dropped snapshots are used again"


def test_a_snapshot_is_written_by_another_thread(engine, picture, monkeypatch) -> None:
    begun, go = threading.Event(), threading.Event()
    write = ChunkFile._write

    def slow(self: ChunkFile, place: int, chunks: np.ndarray) -> None:
        begun.set()
        assert go.wait(60)
        write(self, place, chunks)

    monkeypatch.setattr(ChunkFile, "_write", slow)
    timeline = Timeline(engine.open(picture), snapshot_s=60.0)
    seen = walk(timeline, 3)
    assert begun.wait(60), "the disk has not taken the start, and three blocks were played"
    threading.Timer(0.2, go.set).start()
    assert np.array_equal(timeline.seek(1)[0], timeline.session.first_frame[0])
    assert np.array_equal(timeline.seek(9)[-1], seen[9])


def test_snapshots_share_what_did_not_change(engine, picture) -> None:
    session = engine.open(picture)
    history = SnapshotHistory(2**40)
    snapshot = session.snapshot()
    sizes = []
    for _ in range(3):
        history.add(session.snapshot())
        sizes.append(history.num_bytes)
    assert sizes == sizes[:1] * 3
    session.step(Action())
    history.add(session.snapshot())
    found = history.before(2)
    assert found is not None
    assert found.tensors.keys() == snapshot.tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in snapshot.tensors.items())
    history.drop_after(1)
    assert history.num_bytes == sizes[0]
    history.drop_before(1)
    assert (len(history), history.num_bytes) == (1, sizes[0])


def test_a_fork_has_the_past_and_leaves_the_parent_alone(engine, picture) -> None:
    timeline = Timeline(engine.open(picture), snapshot_s=0.4)
    seen = walk(timeline, 10)
    timeline.seek(25)
    twin = timeline.fork()
    walk(twin, 3)
    assert twin.last == 37
    assert np.array_equal(twin.seek(9)[-1], seen[9])
    assert timeline.last == 41
    assert np.array_equal(timeline.seek(41)[-1], seen[41])


def test_the_bundled_model_goes_back_bit_for_bit() -> None:
    engine = reverie.load("nano", device="cpu")
    timeline = Timeline(engine.open(scene=bundled_scenes()[0], seed=3), snapshot_s=0.8)
    seen = walk(timeline, 14)
    for frame in (33, 9, 57, 21):
        assert np.array_equal(timeline.seek(frame)[-1], seen[frame]), frame
    file = timeline.describe()
    again = open_session(engine, file)
    assert np.array_equal([again.step(block)[-1] for block in blocks_of(again, file)][-1], seen[21])


# ------------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("kind", ["image", "scene"])
def test_a_file_generates_the_session_again(engine, memory_engine, scene, picture, tmp_path, kind: str) -> None:
    owner = engine if kind == "image" else memory_engine
    session = owner.open(picture, seed=7) if kind == "image" else owner.open(seed=7, scene=scene, start=1)
    timeline = Timeline(session)
    seen = walk(timeline, 6)
    timeline.describe("  my\nwalk ").save(tmp_path / "a.reverie")
    file = SessionFile.load(tmp_path / "a.reverie")
    assert (file.title, file.num_frames, file.seed) == ("my walk", 25, 7)
    assert file.last_frame == hash_frame(seen[25])
    again = open_session(owner, file, {"alley": scene})
    assert file.warnings(again) == []
    blocks = blocks_of(again, file)
    assert [len(block) for block in blocks] == [4] * 6
    assert np.array_equal([again.step(block)[-1] for block in blocks], list(seen.values()))

    resumed = Timeline(open_session(owner, file, {"alley": scene}))
    resumed.resume(file, timeline.snapshot(), timeline.shown[0])
    assert (resumed.frame, resumed.earliest) == (25, 25)
    assert np.array_equal(resumed.seek(3)[-1], seen[25])
    assert np.array_equal(resumed.step(WALK[1]), timeline.step(WALK[1]))
    assert resumed.describe().script == timeline.describe().script
    with pytest.raises(CheckpointError, match="the snapshot has 29 frames"):
        Timeline(open_session(owner, file, {"alley": scene})).resume(file, timeline.snapshot(), timeline.shown[0])


def test_a_session_of_fewer_passes_is_generated_again_with_as_many(engine, picture, tmp_path) -> None:
    assert (engine.pass_counts, len(engine.schedule().sigmas)) == ((1, 2), 2)
    timeline, own = Timeline(engine.open(picture, seed=7, passes=1)), Timeline(engine.open(picture, seed=7))
    seen, others = walk(timeline, 6), walk(own, 6)
    assert not np.array_equal(seen[25], others[25])
    assert np.array_equal(timeline.seek(13)[-1], seen[13])
    timeline.seek(25)
    timeline.describe("fast").save(tmp_path / "a.reverie")
    own.describe("own").save(tmp_path / "b.reverie")
    with zipfile.ZipFile(tmp_path / "b.reverie") as archive:
        assert "passes" not in json.loads(archive.read("session.json"))
    file = SessionFile.load(tmp_path / "a.reverie")
    again = open_session(engine, file)
    assert (again.passes, file.passes, SessionFile.load(tmp_path / "b.reverie").passes) == (1, 1, None)
    assert np.array_equal([again.step(block)[-1] for block in blocks_of(again, file)], list(seen.values()))
    assert np.array_equal(timeline.reset(7, 2), own.reset(7))
    assert np.array_equal(timeline.step(WALK[0]), own.step(WALK[0])), "as many as it was given at its last start"
    rewrite(tmp_path / "a.reverie", lambda head: head.update(passes=5))
    with pytest.raises(DataError, match=r"played with 5 passes a block, and tiny makes 1, 2; load tiny"):
        open_session(engine, SessionFile.load(tmp_path / "a.reverie"))
    with pytest.raises(ShapeError, match=r"in 1, 2 passes by this model, got 3"):
        engine.open(picture, passes=3)


def test_a_session_that_has_not_begun(engine, picture) -> None:
    timeline = Timeline(engine.open(picture))
    file = SessionFile.from_bytes(timeline.describe().to_bytes())
    assert (file.script, file.num_frames) == (None, 1)
    assert blocks_of(open_session(engine, file), file) == []


def test_a_file_that_ends_within_a_block(engine, picture) -> None:
    timeline = Timeline(engine.open(picture))
    walk(timeline, 2)
    file = timeline.describe()
    assert file.script is not None
    actions = list(file.script.actions())[:6]
    cut = SessionFile(**{**{name: getattr(file, name) for name in SessionFile.__slots__},
                         "script": file.script.from_actions(actions)})  # fmt: skip
    assert blocks_of(engine.open(picture), cut) == [(WALK[0],) * 4, (WALK[1],) * 4]


@pytest.fixture
def written(engine, picture, tmp_path) -> Path:
    timeline = Timeline(engine.open(picture, seed=7))
    walk(timeline, 3)
    timeline.describe("a walk").save(tmp_path / "a.reverie")
    return tmp_path / "a.reverie"


def rewrite(path: Path, head=lambda head: None, **parts: bytes | None) -> None:
    """Changes parts of a file: `head` its session.json in place, None drops a part."""
    with zipfile.ZipFile(path) as archive:
        content: dict[str, bytes | None] = {name: archive.read(name) for name in archive.namelist()}
    facts = json.loads(content["session.json"] or b"")
    head(facts)
    content["session.json"] = json.dumps(facts).encode()
    content |= {f"{name}.{'png' if name == 'start' else 'json'}": part for name, part in parts.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in content.items():
            if part is not None:
                archive.writestr(name, part)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "cannot read the session"),
        (lambda path: path.write_bytes(b"not a zip"), "not a session's file, or was cut short"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "or was cut short"),
        (lambda path: path.write_bytes(path.read_bytes()[:200] + bytes(60) + path.read_bytes()[260:]),
         "export it again"),
        (lambda path: rewrite(path, session=None), "session.json is missing"),
        (lambda path: rewrite(path, session=b"[" * 50_000), "not valid JSON"),
        (lambda path: rewrite(path, session=b"x" * 70_000), "larger than 65536 bytes"),
        (lambda path: rewrite(path, lambda head: head.update(version=9)), "version 9, expected 1"),
        (lambda path: rewrite(path, lambda head: head.update(kind="x")), "not of the kind"),
        (lambda path: rewrite(path, lambda head: head.update(seed=True)), "its seed is not of the expected form"),
        (lambda path: rewrite(path, lambda head: head.update(frames=3)), "says 3"),
        (lambda path: rewrite(path, lambda head: head.update(passes="2")), "its passes is not"),
        (lambda path: rewrite(path, lambda head: head.update(created="now")), "its created is not"),
        (lambda path: rewrite(path, lambda head: head.update(scene={"fingerprint": "../x/0123456789ab", "start": 0})),
         "its fingerprint is not"),
        (lambda path: rewrite(path, start=None), "expected start.png or scene"),
        (lambda path: rewrite(path, start=b"no image"), "not a picture that can be read"),
        (lambda path: rewrite(path, actions=b"[]"), "at least one segment"),
        (lambda path: rewrite(path, actions=b'[{"keys": ["fly"], "frames": 12}]'), "played with tiny; load that model"),
    ],
)  # fmt: skip
def test_bad_files_are_one_line(model_folder, written, tmp_path, capsys, change, message: str) -> None:
    change(written)
    assert replay(model_folder, written, tmp_path / "out.mp4") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("reverie:")]
    assert message in line
    assert not (tmp_path / "out.mp4").exists()


def test_a_zip_bomb_is_refused(written) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("thumbnail.jpg", bytes(50_000_000))
    with pytest.raises(DataError, match="larger than"):
        SessionFile.from_bytes(buffer.getvalue())


# ------------------------------------------------------------------------------------------------- the commands


def replay(model_folder: Path, file: Path, output: Path, *more: str) -> int:
    options = ["--model", str(model_folder), "--dtype", "float32", "--device", "cpu"]
    return cli.main(["replay", str(file), *options, "-o", str(output), *more])


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_replay_writes_a_video_that_names_its_session(
    model_folder, engine, written, tmp_path, capsys, suffix: str
) -> None:
    output = tmp_path / f"out{suffix}"
    assert replay(model_folder, written, output, "--overlay", "--scale", "2") == 0
    assert "equals the session's, bit for bit" in capsys.readouterr().err
    log = read_log(output)
    file = SessionFile.load(written)
    assert (log["model"], log["seed"], log["title"]) == (engine.fingerprint, 7, "a walk")
    assert (log["actions"], log["last_frame"]) == (str(file.script), file.last_frame)
    frames = read_frames(output)
    assert frames.shape[2] == 128
    assert len(frames) == 13
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.reverie", output.name]


def test_replay_tells_that_another_model_differs(model_folder, written, tmp_path, capsys) -> None:
    rewrite(written, lambda head: head.update(model="tiny/000000000000/float32/cpu", last_frame="0" * 64))
    assert replay(model_folder, written, tmp_path / "out.gif") == 0
    told = capsys.readouterr().err
    assert "its frames will differ" in told
    assert "the last one differs" in told


def test_replay_looks_for_the_scene(memory_engine, scene, tmp_path, capsys) -> None:
    timeline = Timeline(memory_engine.open(seed=1, scene=scene))
    walk(timeline, 2)
    timeline.describe().save(tmp_path / "b.reverie")
    assert replay(memory_engine.folder, tmp_path / "b.reverie", tmp_path / "b.mp4") == 2
    assert "began in the scene 'alley', which is not here" in capsys.readouterr().err
    assert replay(memory_engine.folder, tmp_path / "b.reverie", tmp_path / "b.mp4", "--scene", str(scene)) == 0
    assert "bit for bit" in capsys.readouterr().err


def test_generate_reads_a_session(model_folder, engine, written, tmp_path) -> None:
    options = ["--model", str(model_folder), "--dtype", "float32", "--device", "cpu", "--actions", str(written)]
    assert cli.main(["generate", *options, "-o", str(tmp_path / "out.mp4")]) == 0
    log = read_log(tmp_path / "out.mp4")
    assert (log["seed"], log["actions"]) == (7, str(SessionFile.load(written).script))
    assert cli.main(["generate", *options, "--seed", "9", "-o", str(tmp_path / "out.mp4")]) == 0
    assert read_log(tmp_path / "out.mp4")["seed"] == 9
