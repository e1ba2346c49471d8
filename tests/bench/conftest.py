"""The tiny model of the engine's tests."""

from tests.engine.conftest import engine as engine
from tests.engine.conftest import model_folder as model_folder
from tests.engine.conftest import picture as picture
