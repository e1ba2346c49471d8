"""`reverie bench --players`."""

from __future__ import annotations

import json

import pytest

from reverie import cli
from reverie.bench.players import random_engine


def bench(*words: str) -> int:
    return cli.main(["bench", "--device", "cpu", "--dtype", "float32", "--seconds", "0.4", *words])


def test_json_is_one_line_with_a_result_for_each_number(model_folder, capsys) -> None:
    assert bench("--model", str(model_folder), "--players", "1", "3", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    one, three = report["results"]
    assert (one["players"], three["players"]) == (1, 3)
    for result in (one, three):
        assert result["rounds"] >= 2
        assert all(value > 0 for value in result.values())
        ratio = result["frames_per_s"] / result["turns_frames_per_s"]
        assert result["times_turns"] == pytest.approx(ratio, rel=0.05, abs=0.01)
    assert one["session_mib"] == three["session_mib"], "memory is a player's"
    assert "float32" in report["machine"]


def test_the_table_of_made_up_weights(capsys) -> None:
    assert bench("--model", "tiny-memory", "--random-weights", "--players", "2") == 0
    out = capsys.readouterr().out
    assert "random weights" in out
    assert "p95 ms" in out


def test_made_up_weights_reach_every_part() -> None:
    engine = random_engine("tiny-memory", "cpu", "float32")
    memory = engine.bundle.memory
    assert memory is not None
    assert all(parameter.device.type == "cpu" for parameter in memory.parameters())
    assert engine.bundle.config.memory is not None


def test_what_cannot_be_measured_is_said_in_a_line(model_folder, capsys) -> None:
    assert bench("--model", str(model_folder), "--players", "0") == 2
    assert "players are 1 to 1024, got 0; say for example --players 1 2 4 8" in capsys.readouterr().err
    assert bench("--model", "huge", "--random-weights", "--players", "1") == 2
    assert "no size 'huge' to make up weights of; expected tiny, tiny-memory, nano" in capsys.readouterr().err
