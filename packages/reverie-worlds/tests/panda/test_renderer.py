import numpy as np
import pytest

from reverie.errors import WorldError

pytest.importorskip("panda3d")

from reverie_worlds.panda import renderer as panda
from reverie_worlds.panda.renderer import Light, Mesh, Panda, make_texture, make_texture_array, tileable_noise

SMALL = (48, 84)
RED = (0.9, 0.1, 0.1, 1.0)


@pytest.fixture(scope="module")
def screen():
    try:
        made = Panda(SMALL, fov_deg=70)
    except WorldError as error:
        pytest.skip(str(error))
    yield made
    made.close()


def scene(screen: Panda) -> None:
    """A grey ground with a red box 10 m to the north."""
    screen.root.getChildren().detach()
    mesh = Mesh()
    mesh.quads([(-60, -60, 0), (60, -60, 0), (60, 60, 0), (-60, 60, 0)], (0.5, 0.5, 0.5, 1))
    mesh.box((-2, 9, 0), (2, 13, 5), RED)
    mesh.node("scene").reparentTo(screen.root)
    screen.set_light(Light())
    screen.cast_shadows((0, 10, 0), 30)
    screen.place_camera((0, 0, 2), 0.0)


def redness(picture: np.ndarray) -> np.ndarray:
    return picture[0, :, :, 0].astype(int) - picture[0, :, :, 1]


def test_a_box_stands_where_it_should_and_turning_right_moves_it_left(screen: Panda) -> None:
    scene(screen)
    picture = screen.render()
    assert picture.shape == (1, *SMALL, 3)
    assert picture.dtype == np.uint8
    assert redness(picture)[20, 42] > 60, "the box is in the middle"
    assert picture[0, 2, 4, 2] > picture[0, 2, 4, 0], "the sky is blue, and at the top"
    screen.place_camera((0, 0, 2), 20.0)
    columns = np.nonzero(redness(screen.render())[20] > 60)[0]
    assert columns.mean() < 30
    screen.place_camera((0, 0, 2), 0.0, 20.0)
    rows = np.nonzero(redness(screen.render())[:, 42] > 60)[0]
    assert rows.mean() > 24, "looking up moves the box down"


def test_the_same_scene_is_the_same_picture_in_every_screen(screen: Panda) -> None:
    scene(screen)
    first = screen.render()
    np.testing.assert_array_equal(screen.render(), first)
    other = Panda(SMALL, fov_deg=70)
    scene(other)
    np.testing.assert_array_equal(other.render(), first)
    other.close()
    other.close()
    np.testing.assert_array_equal(screen.render(), first)


def test_the_sun_throws_a_shadow_and_without_it_the_ground_is_bright(screen: Panda) -> None:
    """The sun stands in the south: the ground behind the box, seen from above, is darker than that beside it."""
    scene(screen)
    screen.set_light(Light(sun_yaw_deg=180, sun_height_deg=40, fog_per_m=0))
    screen.cast_shadows((0, 10, 0), 30)
    screen.place_camera((0, 15, 30), 0.0, -89.0)
    picture = screen.render()[0].astype(int).sum(-1)
    assert picture[24, 42] < 0.7 * picture[24, 4]


def test_what_is_closed_says_so() -> None:
    gone = Panda(SMALL)
    gone.close()
    with pytest.raises(WorldError, match="the screen is closed; open the world again"):
        gone.render()


@pytest.mark.parametrize("supersample", [1, 1.5, 2, 3])
def test_every_supersampling_gives_about_the_same_picture(screen: Panda, supersample: float) -> None:
    scene(screen)
    other = Panda(SMALL, fov_deg=70, supersample=supersample)
    scene(other)
    assert np.abs(other.render().astype(int) - screen.render()).mean() < 3
    other.close()


def test_an_array_texture_shows_the_layer_asked_for(screen: Panda) -> None:
    scene(screen)
    layers = np.zeros((2, 4, 4, 4), np.uint8)
    layers[0, :, :, 0] = layers[1, :, :, 1] = 255
    mesh = Mesh()
    mesh.quads([(-1, 3, 1), (1, 3, 1), (1, 3, 3), (-1, 3, 3)], layer=1)
    node = mesh.node("sign")
    screen.use_texture_array(node, make_texture_array(layers))
    node.reparentTo(screen.root)
    r, g, b = screen.render()[0, 24, 42].astype(int)
    assert g > r + 40
    assert g > b + 40


def test_a_glow_adds_light(screen: Panda) -> None:
    scene(screen)
    plain = screen.render().astype(int)
    mesh = Mesh()
    mesh.quads([(-1, 5, 1), (1, 5, 1), (1, 5, 3), (-1, 5, 3)], (1, 1, 1, 0.3))
    node = mesh.node("glow")
    node.setTexture(make_texture(np.full((2, 2, 4), 255, np.uint8)), 1)
    screen.use_glow(node)
    node.reparentTo(screen.root)
    more = screen.render().astype(int) - plain
    assert more[0, 24, 42].min() > 30
    assert np.abs(more[0, 24, 2]).max() == 0


def test_noise_repeats_and_fills_its_range() -> None:
    noise = tileable_noise(np.random.default_rng(0), 64, 4)
    assert noise.min() == 0
    assert noise.max() == pytest.approx(1)
    assert np.abs(noise[0] - noise[-1]).mean() < 3 * np.abs(np.diff(noise, axis=0)).mean()


def test_a_missing_package_or_no_egl_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panda, "_pipe", None)
    core = panda.import_panda()

    class NoPipes:
        def makeModulePipe(self, name: str) -> None:
            assert name == "p3headlessgl"

    class Selection:
        getGlobalPtr = staticmethod(NoPipes)

    class Core:
        GraphicsPipeSelection = Selection
        loadPrcFileData = staticmethod(core.loadPrcFileData)

    with pytest.raises(WorldError, match=r"no EGL on this machine.*sudo apt install libegl1"):
        panda._graphics_pipe(Core)
    monkeypatch.setitem(__import__("sys").modules, "panda3d.core", None)
    with pytest.raises(WorldError, match=r'pip install "reverie-world\[worlds\]"'):
        panda.import_panda()
