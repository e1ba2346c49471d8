"""Two processes under torchrun: the curve of one process, whole or sharded; kept, gathered and resumed.

One run of two processes does all that needs two; the tests look at what it left.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.helpers.parallel_task import Dream, config
from tests.helpers.synthetic_recordings import write_recording
from torch import nn

from reverie.errors import TrainError
from reverie.models import tokenizer
from reverie.models.checkpoint import load_model, save_trained
from reverie.models.tokenizer import VideoTokenizer
from reverie.train.parallel import Ranks, Shards
from reverie.train.trainer import Trainer

SCRIPT = """
import os, resource, sys
from pathlib import Path
import torch.distributed as dist
from tests.helpers.parallel_task import Dream, config
from reverie.errors import TrainError
from reverie.train.trainer import Trainer
from reverie.train.parallel import Ranks, local
Ranks.__exit__ = lambda *_: None  # one group for all trainings
folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
Trainer(Dream(start=rank), config(folder / "whole")).run()  # different starts: the first process's must win
sharded = Trainer(Dream(start=rank), config(folder / "sharded", shard=True))
sharded.run()
both = sharded.parameters, sharded.average.tensors
kept = [sum(local(x).numel() for x in xs) / sum(x.numel() for x in xs) for xs in both]
(folder / f"kept{rank}").write_text(" ".join(map(str, kept)))
Trainer(Dream(start=rank), config(folder / "remat", shard=True, remat=True)).run()
Trainer(Dream(start=rank), config(folder / "half", shard=True, remat=True, dtype="bfloat16")).run()
for name in ("killed", "fewer"):
    try:
        Trainer(Dream(start=rank, dies_at=5), config(folder / name, shard=True, checkpoint_minutes=0.0)).run()
        raise SystemExit("it should have died")
    except KeyboardInterrupt:
        pass
Trainer(Dream(start=rank), config(folder / "killed", shard=True)).run()
Trainer(Dream(start=rank), config(folder / "more", shard=True)).run()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    Trainer(Dream(start=rank), config(folder / "full", shard=True, steps=1)).run()
except TrainError as error:
    (folder / f"full{rank}").write_text(str(error))
dist.barrier()
dist.destroy_process_group()
os._exit(0)  # on a busy machine gloo's threads have aborted the interpreter's own end
"""


def curve(folder: Path, name: str = "loss") -> list[float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process, and then two, made."""
    folder = tmp_path_factory.mktemp("runs")
    Trainer(Dream(), config(folder / "one", accumulate=2)).run()
    Trainer(Dream(), config(folder / "more", steps=3, accumulate=2, decay=0.0)).run()
    script = folder / "two.py"
    script.write_text(SCRIPT)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [*run, str(folder)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", ["whole", "sharded", "remat"])
@pytest.mark.parametrize("figure", ["loss", "first", "grad_norm", "val/loss", "val/keys"])
def test_two_processes_take_the_steps_of_one_that_accumulates(runs: Path, name: str, figure: str) -> None:
    np.testing.assert_allclose(curve(runs / name, figure), curve(runs / "one", figure), rtol=2e-5, atol=1e-6)


def test_sharded_training_in_bfloat16_follows_float32(runs: Path) -> None:
    np.testing.assert_allclose(curve(runs / "half"), curve(runs / "one"), rtol=0.02)


def test_the_log_says_how_fast_all_of_them_are(runs: Path) -> None:
    for name in ("one", "whole", "sharded"):
        for figure in ("tokens_per_s", "tflops", "mfu"):
            assert min(curve(runs / name, figure)) > 0
    costs = [json.loads(path.read_text())["micro_flops"] for path in runs.glob("*/checkpoints/*06/progress.json")]
    assert costs.count(min(costs)) >= 4  # all that do not make their activations again


@pytest.mark.parametrize("name", ["whole", "sharded", "killed", "more"])
def test_two_processes_leave_the_model_of_one(runs: Path, name: str) -> None:
    """`more` went on sharded from what one process had begun."""
    one, two = load_file(runs / "one/out"), load_file(runs / name / "out")
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-4, atol=2e-5, msg=key)


def test_each_process_keeps_about_half(runs: Path) -> None:
    parts = [list(map(float, (runs / f"kept{rank}").read_text().split())) for rank in range(2)]
    assert all(0.4 < share < 0.7 for part in parts for share in part), parts


def test_killed_and_resumed_is_never_killed_when_sharded(runs: Path) -> None:
    assert curve(runs / "killed")[-2:] == curve(runs / "sharded")[-2:]
    whole, resumed = load_file(runs / "sharded/out"), load_file(runs / "killed/out")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_one_process_goes_on_from_what_two_sharded_ones_wrote(runs: Path) -> None:
    assert (runs / "fewer/checkpoints/step-000000004/.metadata").exists()
    with pytest.raises(TrainError, match="trained by AdamW alone; resume with --no-muon"):
        Trainer(Dream(), config(runs / "fewer", accumulate=2, muon=True)).run()
    task = Dream(start=5)
    Trainer(task, config(runs / "fewer", accumulate=2)).run()
    assert task.calls == 2 * 2
    np.testing.assert_allclose(curve(runs / "fewer"), curve(runs / "one"), rtol=2e-5)
    for key, tensor in load_file(runs / "one/out").items():
        torch.testing.assert_close(load_file(runs / "fewer/out")[key], tensor, rtol=1e-4, atol=2e-5, msg=key)


def test_a_sharded_checkpoint_that_does_not_fit_is_refused(runs: Path, tmp_path: Path) -> None:
    for name in ("other", "damaged", "index"):
        shutil.copytree(runs / "killed/checkpoints", tmp_path / name / "checkpoints")
    task = Dream()
    task.model = nn.ModuleDict({"world": task.world})
    with pytest.raises(TrainError, match=r"of another model or optimizer .*with ema/"):
        Trainer(task, config(tmp_path / "other")).run()
    for path in (tmp_path / "damaged/checkpoints/step-000000006").glob("*.distcp"):
        path.write_bytes(b"broken")
    with pytest.raises(TrainError, match=r"step-000000006 is damaged .* delete it"):
        Trainer(Dream(), config(tmp_path / "damaged")).run()
    (tmp_path / "index/checkpoints/step-000000006/.metadata").write_bytes(b"\x00broken")
    with pytest.raises(TrainError, match=r"step-000000006 is damaged .* delete it"):
        Trainer(Dream(), config(tmp_path / "index")).run()


def test_a_full_disk_stops_all_processes_and_is_named(runs: Path) -> None:
    for rank in range(2):
        assert "cannot write the checkpoint" in (runs / f"full{rank}").read_text()
    assert not list((runs / "full/checkpoints").glob("step-*"))


def test_only_sharded_trainings_need_blocks_and_adamw(tmp_path: Path) -> None:
    Trainer(Dream(), config(tmp_path, shard=True, steps=1)).run()  # one process: nothing to shard
    with pytest.raises(TrainError, match="Muon needs whole matrices"):
        config(tmp_path, shard=True, muon=True)
    with pytest.raises(TrainError, match="no blocks that can be sharded"):
        Shards(nn.Linear(2, 2), [], Ranks(), torch.device("cpu"))


def test_the_command_line_under_torchrun(tmp_path: Path) -> None:
    """Two processes encode a recording once, train, and leave one model."""
    data = write_recording(tmp_path / "walk", (32, 64), num_frames=41)
    torch.manual_seed(0)
    (tmp_path / "tokenizer").mkdir()
    save_trained(tmp_path / "tokenizer", "tokenizer", VideoTokenizer(tokenizer.tiny()), {})
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "reverie"]
    words = ["train", "world", "--data", str(data), "--tokenizer", str(tmp_path / "tokenizer"), "--preset", "tiny"]
    words += ["-o", str(tmp_path / "run"), "--steps", "2", "--batch", "2", "--clip-steps", "4", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*run, *words], env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert load_model(tmp_path / "run/model").config.summary["processes"] == 2
    assert max(json.loads(line)["step"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()) == 2
