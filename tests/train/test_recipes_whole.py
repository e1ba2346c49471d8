"""`reverie train nano` from an empty folder to a model that plays, killed once in the middle of its training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from tests.helpers.made_up_packs import SIZE
from tests.helpers.small_model import save_untrained_model
from tests.helpers.toy_game import SPACE

from reverie.engine.engine import load
from reverie.types import Action

ROOT = Path(__file__).parents[2]


def start(*words: str) -> subprocess.Popen[str]:
    """The command line with the toy game, in a process of its own."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.toy_game", *words],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_killed_recipe_goes_on_to_a_model_that_plays(tmp_path: Path) -> None:
    tokenizer, run = save_untrained_model(tmp_path / "tokenizer", SPACE), tmp_path / "run"
    words = ["train", "nano", "--recipe", "tiny", "--games", "toy", "--tokenizer", str(tokenizer), "-o", str(run)]
    process, lines = start(*words), []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if "exported the averaged weights" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    said = "".join(lines)
    assert process.returncode == -signal.SIGKILL, said
    assert (
        "stage 1 of 8: record; done: nothing yet; then: pack, encode, depth, ego-motion, views, training, sheets"
        in said
    )
    stopped_at = int(said.rsplit("training: step ", 1)[1].split(",")[0])
    load(run / "run/model", device="cpu", dtype="float32")
    depth = (run / "geometry.safetensors").read_bytes()

    again = start(*words)
    said, _ = again.communicate(timeout=1200)
    assert again.returncode == 0, said
    for done in ("recorded toy", "packed toy", "depth toy", "ego-motion toy"):
        assert done not in said, f"{done} was done before"
    assert "encode (again: done before); done: record, pack" in said
    assert (run / "geometry.safetensors").read_bytes() == depth
    steps = [json.loads(line)["step"] for line in (run / "run/log.jsonl").read_text().splitlines()]
    assert max(steps) == 60
    assert 0 < stopped_at < 60
    assert set(json.loads((run / "stages.json").read_text())["done"]) >= {"record", "pack", "training", "sheets"}
    assert (run / "sheet.jpg").is_file()

    session = load(run / "run/model", device="cpu", dtype="float32").open(np.full((*SIZE, 3), 90, np.uint8))
    assert session.step(Action(frozenset({"forward"}), (0.0, 2.0))).shape == (4, *SIZE, 3)

    other = start(*words, "--limit", "3")
    said, _ = other.communicate(timeout=600)
    assert other.returncode == 2, said
    assert "was begun with limit none, got 3; run it as it was begun, or give another folder with -o" in said
    assert said.count("\n") == 1, "one line"
