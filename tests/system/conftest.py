"""What tests of whole programs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.object_server import ObjectServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """An S3 server; tests tell their objects apart by prefixes of their own."""
    with ObjectServer(tmp_path_factory.mktemp("moto")) as running:
        yield running
