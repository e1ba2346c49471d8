"""The map from above: the right way round, to scale, and sound where there is nothing."""

from __future__ import annotations

import numpy as np

from reverie.vision.top_view import BACKGROUND, CAMERA, draw_top_view

NOWHERE = np.zeros((1, 2))


def draw(points: np.ndarray, yaw: float = 0.0, trail: np.ndarray = NOWHERE) -> np.ndarray:
    return draw_top_view(points, np.array([0, 0, 1.7, yaw, 0, 0]), trail, 80.0, 128)


def light(image: np.ndarray) -> np.ndarray:
    """Where something is drawn, the camera and its field of view left out."""
    shown = image.astype(int).sum(-1)
    empty = draw(np.zeros((0, 3))).astype(int).sum(-1)
    return np.abs(shown - empty) > 8


def test_north_is_up_and_east_is_right() -> None:
    for east, north in ((5, 0), (-5, 0), (0, 5), (0, -5)):
        rows, columns = np.nonzero(light(draw(np.array([[east, north, 1.7]], np.float32))))
        assert np.sign(columns.mean() - 63.5) == np.sign(east) or not east
        assert np.sign(63.5 - rows.mean()) == np.sign(north) or not north


def test_the_field_of_view_turns_with_the_camera() -> None:
    for yaw, row, column in ((0, 50, 64), (90, 64, 78), (180, 78, 64), (270, 64, 50)):
        image = draw(np.zeros((0, 3)), yaw)
        assert image[row, column].sum() > 2 * sum(BACKGROUND)
        assert tuple(image[127 - row, 127 - column]) == BACKGROUND
    assert tuple(draw(np.zeros((0, 3)))[64, 64]) == CAMERA


def test_colour_says_how_high_a_point_is_and_ceilings_are_left_out() -> None:
    def colour(height: float) -> np.ndarray:
        image = draw(np.tile(np.array([[6.0, -3.0, height]], np.float32), (9, 1)))
        return image[light(image)].mean(0)

    low, high = colour(0.0), colour(1.7)
    assert low[2] > low[0]
    assert high[0] > high[2]
    assert not light(draw(np.array([[5, 0, 9.0]]))).any()


def test_the_trail_is_drawn() -> None:
    trail = np.stack([np.zeros(9), np.linspace(-6, 0, 9)], 1)
    image = draw(np.zeros((0, 3)), 0.0, trail)
    assert image[100, 64, 0] > 150
    assert image[30, 64, 0] < 150


def test_the_map_reaches_to_most_of_the_points() -> None:
    around = np.random.default_rng(0).normal(0, 15, (4000, 3)).astype(np.float32)
    around[:, 2] = 1.7
    assert light(draw(around)).mean() > 0.3
