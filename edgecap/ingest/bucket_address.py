"""Where a bucket is and who asks, from its URL and the environment, as S3 tools have it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from edgecap.errors import UsageError
from edgecap.ingest.bucket_errors import FIX_KEYS

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()=+-]+(/[A-Za-z0-9!_.*'()=+-]+)*")
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_YES = {"1", "true", "yes", "on"}
DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """Everything needed to reach a bucket except the keys, which the library reads from the environment.

    Attributes:
        endpoint: URL of the server; empty for AWS itself.
        ca: Certificates (PEM) of the CAs to trust besides the system's.
        anonymous: Requests are not signed.
    """

    bucket: str
    prefix: str
    endpoint: str
    region: str
    ca: bytes
    anonymous: bool

    @property
    def server(self) -> str:
        """The server in words."""
        return self.endpoint or f"Amazon S3 in {self.region}"


def find_bucket(url: str, environ: Mapping[str, str]) -> BucketAddress:
    """The address that `s3://bucket/prefix` and the environment name.

    Raises:
        UsageError: one of the two is malformed, or credentials are missing; says which to set.
    """
    scheme, _, rest = url.partition("://")
    name, _, prefix = rest.rstrip("/").partition("/")
    if "@" in rest or ":" in name:
        raise UsageError(f"a store URL is {scheme}://bucket/prefix and holds no credentials", fix=FIX_KEYS)
    if not _BUCKET.fullmatch(name):
        raise UsageError(
            f"{name!r} in store URL {url} is no bucket name", fix="give it as in --store s3://bucket/prefix"
        )
    if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise UsageError(
            f"{prefix!r} in store URL {url} is no prefix of keys", fix="use letters, digits, - _ . and /"
        )
    endpoint = _endpoint(environ)
    anonymous = environ.get("AWS_SKIP_SIGNATURE", "").lower() in _YES
    _require_keys(environ, endpoint, anonymous)
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    return BucketAddress(name, prefix, endpoint, region, _ca(environ), anonymous)


def _endpoint(environ: Mapping[str, str]) -> str:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    variable = next((name for name in names if environ.get(name)), "")
    if not variable:
        return ""
    endpoint = environ[variable].rstrip("/")
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname or ""
        fine = parts.scheme in ("http", "https") and _HOST.fullmatch(host) and parts.port != 0
    except ValueError:
        fine = None
    if not fine or parts.username or parts.query or parts.path:
        raise UsageError(f"{variable}={endpoint!r} is no URL of a server", fix="give https://host[:port]")
    allowed = environ.get("AWS_ALLOW_HTTP", "").lower() in _YES
    if parts.scheme == "http" and not allowed and not _loopback(host):
        raise UsageError(
            f"{variable} is {endpoint}: data and keys' signatures would cross the network unencrypted",
            fix="use https://, or set AWS_ALLOW_HTTP=true where the network itself is trusted",
        )
    return endpoint


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_keys(environ: Mapping[str, str], endpoint: str, anonymous: bool) -> None:
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if bool(key) != bool(secret):
        missing = "AWS_SECRET_ACCESS_KEY" if key else "AWS_ACCESS_KEY_ID"
        raise UsageError(f"{missing} is not set, and its other half is", fix=FIX_KEYS)
    # Without an own endpoint the roles of a cloud's machines may serve; their absence shows on first use.
    if endpoint and not key and not anonymous and not any(map(environ.get, _ROLES)):
        raise UsageError(f"no credentials for {endpoint}", fix=FIX_KEYS)


def _ca(environ: Mapping[str, str]) -> bytes:
    path = environ.get("AWS_CA_BUNDLE", "")
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"AWS_CA_BUNDLE={path} cannot be read: {error.strerror}", fix="name a PEM file, or unset it"
        ) from error
