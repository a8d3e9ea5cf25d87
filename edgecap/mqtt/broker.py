"""Where the broker is and how to prove who we are to it; secrets come from files, never from options."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgecap.errors import ConfigError

BROKER_VARIABLE = "EDGECAP_BROKER"
PASSWORD_CREDENTIAL = "broker-password"  # noqa: S105 (a file's name)
_PORT = {"mqtt": 1883, "mqtts": 8883}
_EXAMPLE = "write mqtt://host:1883 or mqtts://user@host:8883"


@dataclass(frozen=True, slots=True)
class Broker:
    """Address and credentials of an MQTT broker."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def name(self) -> str:
        """`host:port`, as error messages say it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL without the password."""
        user = f"{self.username}@" if self.username else ""
        return f"{'mqtts' if self.tls else 'mqtt'}://{user}{self.name}"

    def tls_context(self) -> ssl.SSLContext:
        """Certificates and keys, loaded afresh so that a renewed certificate needs no restart.

        Raises:
            ConfigError: a file is missing, unreadable or not in PEM format.
        """
        context = ssl.create_default_context()
        if self.ca_file is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            _load(self.ca_file, "CA certificate", lambda: context.load_verify_locations(self.ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file is not None:
            cert, key = self.cert_file, self.key_file
            _load(cert, "client certificate or its key", lambda: context.load_cert_chain(cert, key))
        return context


def parse_broker(
    url: str,
    *,
    password_file: Path | None = None,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    allow_password: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Broker:
    """Read `mqtt[s]://[user@]host[:port]`.

    The password comes from `password_file`, else from the systemd credential `broker-password`.
    `allow_password` admits one inside the URL, which is right for an environment variable and wrong
    for a command line or a config file, both of which others can read.

    Raises:
        ConfigError: the URL cannot be used, or a password file cannot be read.
    """
    try:
        parts = urlsplit(url if "://" in url else f"mqtt://{url}")
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"broker {_hide(url)!r} is not a URL: {error}", fix=_EXAMPLE) from None
    if parts.scheme not in _PORT:
        raise ConfigError(f"broker URL has scheme {parts.scheme!r}", fix=_EXAMPLE)
    if not parts.hostname or port == 0:
        raise ConfigError(f"broker {_hide(url)!r} names no host or port", fix=_EXAMPLE)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(f"broker {_hide(url)!r} has more than user, host and port", fix=_EXAMPLE)
    if parts.password is not None and not allow_password:
        raise ConfigError(
            f"broker {_hide(url)!r} carries a password, which other users of this machine could read",
            fix=f"put the URL into the environment variable {BROKER_VARIABLE}, or the password into a file: "
            f"`password_file` in the config, or the systemd credential {PASSWORD_CREDENTIAL!r}",
        )
    if (cert_file is None) != (key_file is None):
        raise ConfigError(
            "a client certificate needs both its certificate and its key file",
            fix="set both `cert_file` and `key_file`, or neither",
        )
    tls = parts.scheme == "mqtts"
    if not tls and (ca_file or cert_file):
        raise ConfigError(
            f"broker {_hide(url)!r} has certificates but no TLS", fix="write mqtts:// instead of mqtt://"
        )
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password is not None else None
    if password is None:
        password = _password(password_file, username, os.environ if environ is None else environ)
    if password is not None and username is None:
        raise ConfigError(
            f"broker {_hide(url)!r} has a password but no user", fix="write mqtts://user@host:port"
        )
    return Broker(
        host=parts.hostname,
        port=port or _PORT[parts.scheme],
        tls=tls,
        username=username,
        password=password,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
    )


def find_broker(
    option: str | None,
    *,
    config_url: str | None = None,
    password_file: Path | None = None,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Broker:
    """The broker to use: the command-line option, else `EDGECAP_BROKER`, else the config's.

    Raises:
        ConfigError: none is named, or the one that is cannot be used.
    """
    environ = os.environ if environ is None else environ
    from_environment = None if option else environ.get(BROKER_VARIABLE)
    url = option or from_environment or config_url
    if not url:
        raise ConfigError("no MQTT broker is named", fix=f"give --broker, or set {BROKER_VARIABLE}")
    return parse_broker(
        url,
        password_file=password_file,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        allow_password=bool(from_environment),
        environ=environ,
    )


def _password(path: Path | None, username: str | None, environ: Mapping[str, str]) -> str | None:
    if path is None:
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if not directory or username is None:
            return None
        path = Path(directory) / PASSWORD_CREDENTIAL
        # An empty one is what the unit hands over when no password was set.
        if not path.exists() or not path.read_bytes().strip():
            return None
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"password file {path} cannot be read: {error}",
            fix="check the path, and that this user may read it",
        ) from error


def _load(path: Path, what: str, load: object) -> None:
    assert callable(load)
    try:
        load()
    except ssl.SSLError as error:
        raise ConfigError(
            f"{what} {path} cannot be used: {error.reason or error}",
            fix="give files in PEM format, the key without a passphrase and belonging to the certificate",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{what} {path} cannot be read: {error.strerror or error}",
            fix="check the path, and that this user may read it",
        ) from error


def _hide(url: str) -> str:
    """The URL with its password replaced, for messages."""
    head, at, host = url.rpartition("@")
    scheme, sep, user = head.rpartition("://")
    return f"{scheme}{sep}{user.split(':', 1)[0]}{':…' if ':' in user else ''}{at}{host}" if at else url
