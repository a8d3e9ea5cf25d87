"""When a certificate in PEM format ends; the daemon's dependencies have no X.509 parser of their own."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


def not_after(path: Path) -> datetime:
    """End of validity of the first certificate of a file (RFC 5280 § 4.1: tbsCertificate.validity.notAfter).

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no certificate.
    """
    text = path.read_text(encoding="ascii", errors="replace")
    begin, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    if begin < 0 or end < begin:
        raise ValueError("it holds no certificate in PEM format")
    der = ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)])
    try:
        ((_, certificate, _),) = [_element(der)]
        (_, body, _) = _element(certificate)
        tag, _, rest = _element(body)
        if tag == _VERSION:
            _, _, rest = _element(rest)  # serialNumber
        for _ in range(2):  # signature, issuer
            _, _, rest = _element(rest)
        _, validity, _ = _element(rest)
        _, _, rest = _element(validity)
        tag, value, _ = _element(rest)
    except IndexError:
        raise ValueError("it is cut short") from None
    form = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}.get(tag)
    if form is None:
        raise ValueError("its end of validity is not a time")
    return datetime.strptime(value.decode("ascii"), form).replace(tzinfo=UTC)


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content and what follows, of the first DER element."""
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        n = length & 0x7F
        length, at = int.from_bytes(data[2 : 2 + n]), 2 + n
    if len(data) < at + length:
        raise IndexError
    return tag, data[at : at + length], data[at + length :]
