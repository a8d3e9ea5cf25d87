"""What tests of whole programs share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.object_server import ObjectServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """An S3 server; tests tell their objects apart by prefixes of their own."""
    from tests.system.object_server import ObjectServer  # boto3 takes most of a second to import

    with ObjectServer(tmp_path_factory.mktemp("moto")) as running:
        yield running
