"""What an object store's failure means, from the words that the client library leaves, and what to do."""

from __future__ import annotations

import re

from edgecap.errors import StoreError

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,200})</Message>")
_PASSING_CODES = {
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "TooManyRequests",
}
FIX_KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key that may list, read and write this bucket"
)
_FIXES = {
    "NoSuchBucket": "create the bucket, or correct its name after s3://",
    "AccessDenied": FIX_KEYS,
    "InvalidAccessKeyId": FIX_KEYS,
    "SignatureDoesNotMatch": FIX_KEYS,
    "ExpiredToken": "renew AWS_SESSION_TOKEN and the key that belongs to it",
    "InvalidToken": "renew AWS_SESSION_TOKEN and the key that belongs to it",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": "set AWS_REGION to the bucket's region",
    "AuthorizationHeaderMalformed": "set AWS_REGION to the bucket's region",
    "IllegalLocationConstraintException": "set AWS_REGION to the bucket's region",
}


def status_of(error: Exception) -> int:
    """The HTTP status in an error of the library, 0 when the server did not answer."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else 0


def code_of(error: Exception) -> str:
    """The error code in the server's answer; empty when there is none."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def explain(error: Exception, *, url: str, bucket: str, server: str, what: str) -> StoreError:
    """The `StoreError` for an error of the library; its evidence says whether that is `passing`."""
    text, status, code = str(error), status_of(error), code_of(error)
    passing = False
    if "169.254.169.254" in text or "169.254.170" in text:
        why = "no credentials are set, and this machine has no role that gives any"
        fix = FIX_KEYS
    elif status:
        message = _MESSAGE.search(text)
        said = f"{code}: {message[1]}" if code and message else code or f"HTTP {status}"
        why, fix = f"{server} answers {said}", _FIXES.get(code, "")
        if code == "NoSuchBucket":
            why = f"there is no bucket {bucket!r} at {server}"
        passing = status >= 500 or status == 429 or code in _PASSING_CODES
        if not fix:
            forbidden = "look at the key's rights" if status in (401, 403) else "look into the server's log"
            fix = "it may be overloaded: try again" if passing else forbidden
            if status in (401, 403):
                fix = FIX_KEYS
            elif status == 404 and not code:
                fix = "check AWS_ENDPOINT_URL: what answers there is no S3 server"
    else:
        why, fix, passing = _unanswered(text, server)
    return StoreError(f"store {url}: {what}: {why}", fix=fix, passing=passing, cause=text, status=status)


def _unanswered(text: str, server: str) -> tuple[str, str, bool]:
    check = "check AWS_ENDPOINT_URL, and that the server runs"
    if "ConnectionRefused" in text:
        return f"{server} refuses the connection", check, True
    if "dns error" in text:
        return f"the name of {server} cannot be resolved", "check AWS_ENDPOINT_URL and the DNS", True
    if "certificate" in text.lower() or "InvalidContentType" in text:
        return (
            f"no TLS connection to {server}",
            "check that it speaks https; AWS_CA_BUNDLE names the file of a private CA",
            False,
        )
    if "Timeout" in text or "TimedOut" in text:
        return f"{server} does not answer in time", "check the network on the way, and AWS_ENDPOINT_URL", True
    return f"the connection to {server} fails", check, True
