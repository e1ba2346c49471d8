"""Two processes under torchrun train one model: the same weights in both, and it learns."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path
import torch
from reverie.train.loop import Task, Trainer, TrainerConfig

class Double(Task):
    def __init__(self):
        torch.manual_seed(int(__import__("os").environ["RANK"]))  # different starts: rank 0's must win
        self.model = torch.nn.Linear(1, 1)
    def batch(self, rng):
        x = torch.from_numpy(rng.normal(size=(8, 1)).astype("float32"))
        return x, 2 * x + 1
    def loss(self, batch, generator):
        x, y = batch
        return (self.model(x) - y).square().mean(), {}

task = Double()
folder = Path(sys.argv[1])
Trainer(task, TrainerConfig(folder=folder, steps=60, lr=0.1, warmup_steps=1, device="cpu", tensorboard=False)).run()
rank = __import__("os").environ["RANK"]
(folder / f"rank{rank}.txt").write_text(f"{task.model.weight.item()!r} {task.model.bias.item()!r}")
"""


def test_two_processes_end_with_one_model(tmp_path: Path) -> None:
    script = tmp_path / "double.py"
    script.write_text(SCRIPT)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*run, str(tmp_path / "run")], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = ((tmp_path / "run" / f"rank{rank}.txt").read_text() for rank in range(2))
    assert first == second
    weight, bias = map(float, first.split())
    assert abs(weight - 2) < 0.3
    assert abs(bias - 1) < 0.3
