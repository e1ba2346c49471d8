"""Codes and pixels become actions: the latest state counts, taps and movement are neither lost nor saved up."""

import pytest

from reverie.serve.bindings import InputBox, bindings_for
from reverie.serve.protocol import Input
from reverie.types import ActionSpace

SPACE = ActionSpace(("forward", "back", "left", "right"))
BINDINGS = bindings_for(SPACE)


def box_with(*messages: Input) -> InputBox:
    box = InputBox(BINDINGS)
    for message in messages:
        box.put(message)
    return box


def test_only_what_the_world_knows_is_bound():
    assert BINDINGS.keys["KeyW"] == "forward"
    assert "Space" not in BINDINGS.keys
    assert bindings_for(ActionSpace(("jump",))).keys == {"Space": "jump"}


def test_every_action_can_be_said_in_the_space():
    codes = frozenset({*BINDINGS.keys, *BINDINGS.turns, "KeyZ"})
    for mouse in [(1e5, 1e5), (-1e5, -1e5), (0.0, 0.0)]:
        SPACE.check(BINDINGS.action(codes, mouse, 1))


def test_right_and_up_are_positive():
    assert BINDINGS.action(frozenset(), (10.0, 0.0), 1).mouse[1] > 0
    assert BINDINGS.action(frozenset(), (0.0, 10.0), 1).mouse[0] < 0
    assert BINDINGS.action(frozenset({"ArrowRight"}), (0.0, 0.0), 1).mouse[1] > 0
    assert BINDINGS.action(frozenset({"PageUp"}), (0.0, 0.0), 1).mouse[0] > 0


@pytest.mark.parametrize("num_frames", [1, 4, 12])
def test_mouse_movement_is_spread_over_the_block(num_frames: int):
    _, yaw = BINDINGS.action(frozenset(), (50.0, 0.0), num_frames).mouse
    assert yaw * num_frames == pytest.approx(50 * BINDINGS.deg_per_px)


def test_a_turn_too_fast_is_cut():
    assert BINDINGS.action(frozenset(), (1e5, 1e5), 4).mouse == (-BINDINGS.max_turn_deg[0], BINDINGS.max_turn_deg[1])


def test_a_world_without_a_camera_gets_no_turns():
    bindings = bindings_for(ActionSpace(("left", "right"), mouse=False))
    assert bindings.action(frozenset({"ArrowLeft"}), (9.0, 9.0), 4).mouse == (0.0, 0.0)
    assert bindings.keys["ArrowLeft"] == "left"


def test_each_kind_of_game_can_be_played():
    car = bindings_for(ActionSpace(("forward", "back", "left", "right", "handbrake"), mouse=False)).keys
    assert (car["ArrowLeft"], car["Space"]) == ("left", "handbrake")
    city = bindings_for(ActionSpace(("forward", "left", "jump", "handbrake"))).keys
    assert (city["Space"], city["ShiftLeft"]) == ("jump", "handbrake")
    runner = bindings_for(ActionSpace(("left", "right", "jump", "crouch", "turn-left", "turn-right"), mouse=False)).keys
    assert (runner["ArrowLeft"], runner["KeyA"], runner["ArrowUp"], runner["ArrowDown"]) == (
        "turn-left",
        "left",
        "jump",
        "crouch",
    )
    miner = bindings_for(ActionSpace(("jump", "crouch", "attack", "use"))).keys
    assert (miner["ShiftLeft"], miner["Mouse0"], miner["Mouse2"]) == ("crouch", "attack", "use")


def test_the_latest_keys_count():
    box = box_with(Input(1, frozenset({"KeyW"})))
    assert box.take(4)[0].keys == {"forward"}
    assert box.take(4)[0].keys == {"forward"}
    box.put(Input(2, frozenset({"KeyS"})))
    action, seq = box.take(4)
    assert (action.keys, seq) == ({"back"}, 2)


def test_a_tap_between_two_blocks_is_held_for_one():
    box = box_with(Input(1, frozenset({"KeyW"})), Input(2, frozenset()))
    action, seq = box.take(4)
    assert (action.keys, seq) == ({"forward"}, 2)
    assert box.take(4)[0].keys == frozenset()


def test_movement_adds_up_once():
    box = box_with(Input(1, mouse=(10.0, 0.0)), Input(2, mouse=(20.0, 0.0)))
    assert box.take(1)[0].mouse[1] == pytest.approx(30 * BINDINGS.deg_per_px)
    assert box.take(1)[0].mouse == (0.0, 0.0)


def test_old_messages_are_ignored():
    box = box_with(Input(5, frozenset({"KeyW"})), Input(4, frozenset({"KeyS"})))
    assert box.take(4)[0].keys == {"forward"}


def test_flush_forgets_what_is_stale_and_keeps_what_is_held():
    box = box_with(Input(1, frozenset({"KeyA"})), Input(2, frozenset({"KeyW"}), (10.0, 0.0)))
    box.flush()
    action, _ = box.take(4)
    assert (action.keys, action.mouse) == ({"forward"}, (0.0, 0.0))


def test_a_car_that_is_steered_by_the_camera_turns_with_the_usual_keys():
    bindings = bindings_for(ActionSpace(("forward", "back"), mouse=True))
    assert bindings.action(frozenset({"KeyW", "KeyD"}), (0.0, 0.0), 4).mouse[1] > 0
    assert bindings.action(frozenset({"KeyA"}), (0.0, 0.0), 4).mouse[1] < 0
    assert "KeyA" not in BINDINGS.turns
