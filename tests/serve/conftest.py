"""Sockets of a test end with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.helpers.raw_clients import close_sockets


@pytest.fixture(autouse=True)
def no_socket_stays() -> Iterator[None]:
    yield
    close_sockets()
