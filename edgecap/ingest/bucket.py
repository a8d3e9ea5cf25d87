"""A prefix of an S3-compatible bucket, reached through obstore; failures are `StoreError`s with their fix."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from edgecap.errors import StoreError, UsageError
from edgecap.ingest.bucket_address import BucketAddress, find_bucket
from edgecap.ingest.bucket_errors import explain, status_of

CONNECT_S = 5.0
REQUEST_S = 30.0
LIST_PAGE = 1000
RETRY_FIRST_S, RETRY_MOST_S = 0.2, 5.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """An object in a listing; `name` is its key below the bucket's prefix."""

    name: str
    size: int
    modified_s: float


class Bucket:
    """Objects below `s3://bucket/prefix`. Methods block and may be called from several threads.

    Args:
        url: `s3://bucket` or `s3://bucket/prefix`.
        patience_s: How long a server that is down or overloaded is tried again.
        environ: Where endpoint and region are looked up; keys are always those of this process.
        request_s: A request that takes longer has failed.
    """

    def __init__(
        self,
        url: str,
        *,
        patience_s: float = 5.0,
        environ: Mapping[str, str] = os.environ,
        request_s: float = REQUEST_S,
    ) -> None:
        self.url = url.rstrip("/")
        self.patience_s = patience_s
        self._address = find_bucket(url, environ)
        self._plain_puts = False
        """The server does not know conditional puts. Keys name their contents, so nothing depends on them."""
        self._store = _connect(self._address, request_s)

    def put_new(self, name: str, data: bytes) -> bool:
        """Make an object; False when there is one of this name already, which stays as it is."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError

        def put() -> bool:
            if self._plain_puts:
                obstore.put(self._store, name, data, use_multipart=False)
                return True
            try:
                obstore.put(self._store, name, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            except BaseError as error:
                if status_of(error) != 501:
                    raise
                self._plain_puts = True
                return put()
            return True

        return self._persist(put, f"cannot store {name}")

    def put(self, name: str, data: bytes) -> None:
        """Make or replace an object."""
        import obstore

        self._persist(
            lambda: obstore.put(self._store, name, data, use_multipart=False), f"cannot store {name}"
        )

    def get(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of an object."""
        import obstore

        got = self._persist(
            lambda: obstore.get_range(self._store, name, start=start, end=end), f"cannot read {name}"
        )
        return bytes(got)

    def size(self, name: str) -> int:
        """Bytes of an object."""
        import obstore

        return int(self._persist(lambda: obstore.head(self._store, name), f"cannot look at {name}")["size"])

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; those that are gone already do no harm."""
        import obstore

        for start in range(0, len(names), LIST_PAGE):
            page = list(names[start : start + LIST_PAGE])
            self._persist(partial(obstore.delete, self._store, page), f"cannot delete {page[0]}")

    def objects(self, folder: str) -> Iterator[Found]:
        """Objects anywhere below a folder, a page at a time."""
        import obstore

        what = f"cannot list {folder}/"

        def begin() -> tuple[Any, Any]:
            pages = iter(obstore.list(self._store, folder, chunk_size=LIST_PAGE))
            return pages, next(pages, None)

        pages, page = self._persist(begin, what)
        while page is not None:
            for meta in page:
                yield Found(meta["path"], meta["size"], meta["last_modified"].timestamp())
            # A listing that broke off cannot be taken up in the middle: only the library's own retries help.
            page = self._try(lambda: next(pages, None), what)

    def folders(self, folder: str = "") -> list[str]:
        """Names of the folders directly in a folder, sorted."""
        import obstore

        found = self._persist(
            lambda: obstore.list_with_delimiter(self._store, folder or None), f"cannot list {folder}/"
        )
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

    def _try(self, call: Callable[[], T], what: str) -> T:
        from obstore.exceptions import BaseError

        try:
            return call()
        except (BaseError, OSError, ValueError) as error:
            a = self._address
            raise explain(error, url=self.url, bucket=a.bucket, server=a.server, what=what) from error

    def _persist(self, call: Callable[[], T], what: str) -> T:
        """Repeat a request that fails for a passing reason; every one of ours may be repeated."""
        deadline = time.monotonic() + self.patience_s
        wait_s = RETRY_FIRST_S
        while True:
            try:
                return self._try(call, what)
            except StoreError as error:
                if not error.evidence.get("passing") or time.monotonic() + wait_s > deadline:
                    raise
            time.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, RETRY_MOST_S)


def _connect(address: BucketAddress, request_s: float) -> Any:
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise UsageError(
            f"a store in a bucket needs the package {error.name!r}", fix="pip install 'edgecap[ingest]'"
        ) from error
    config: Any = {"region": address.region, "skip_signature": address.anonymous}
    if address.endpoint:
        config["endpoint"] = address.endpoint
    client: Any = {
        "allow_http": address.endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=min(CONNECT_S, request_s)),
        "timeout": timedelta(seconds=request_s),
    }
    if address.ca:
        client["root_certificate"] = address.ca
    retry: Any = {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=2 * request_s),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=1), "base": 2},
    }
    try:
        return S3Store(
            address.bucket,
            prefix=address.prefix or None,
            config=config,
            client_options=client,
            retry_config=retry,
        )
    except ValueError as error:
        raise UsageError(
            f"AWS_CA_BUNDLE cannot be used: {error}", fix="name a PEM file of certificates, or unset it"
        ) from error
