"""What a broker's refusals mean, in words that say what to do about them."""

from __future__ import annotations

from edgecap.errors import BrokerError

REFUSED = 0x80
"""MQTT 5 reason codes from here on are failures, whatever the packet that carries them."""
UNSUPPORTED_PROTOCOL = 0x84
TOO_LARGE = 0x95

_CONNECT: dict[int, tuple[str, str]] = {
    UNSUPPORTED_PROTOCOL: ("does not speak this version of MQTT", "use a broker with MQTT 5 or 3.1.1"),
    0x85: ("does not accept the client id", "use a client id that this broker allows"),
    0x86: (
        "refused the user name or password",
        "check user and password (EDGECAP_BROKER, `password_file`, or the systemd credential)",
    ),
    0x87: (
        "did not authorise this client",
        "give a user and password, or the client certificate that the broker expects",
    ),
    0x88: ("says that it is unavailable", "try again later, or look into the broker's log"),
    0x89: ("says that it is busy", "try again later"),
    0x8A: ("has banned this client", "look into the broker's list of bans"),
    0x8C: ("does not accept this way of authenticating", "use user and password or a client certificate"),
    0x97: ("says that a quota is exceeded", "raise the broker's quota"),
    0x9F: ("says that clients connect too fast", "try again later"),
}
_PERMANENT = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C})
_DISCONNECT: dict[int, tuple[str, str]] = {
    0x8B: ("is shutting down", ""),
    0x8D: ("heard nothing from this client for too long", ""),
    0x8E: (
        "closed the connection because another client uses the same client id",
        "give every rig and every worker its own name",
    ),
    0x95: (
        "closed the connection because a message was larger than it allows",
        "raise the broker's packet limit to 128 KiB",
    ),
    0x97: ("closed the connection because a quota is exceeded", "raise the broker's quota"),
}
_MESSAGE = {
    0x80: "unspecified error",
    0x83: "implementation specific error",
    0x87: "not authorised",
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    TOO_LARGE: "packet too large",
    0x97: "quota exceeded",
    0x99: "payload format invalid",
    0x9E: "shared subscriptions not supported",
    0xA2: "wildcard subscriptions not supported",
}
_FOR_GOOD = frozenset({0x90, TOO_LARGE, 0x99})


class PublishRefusedError(BrokerError):
    """The broker answered a publish with a failure; the connection goes on.

    Args:
        what: Names broker, topic and reason.
        fix: What to do.
        code: MQTT 5 reason code.
    """

    def __init__(self, what: str, *, fix: str, code: int) -> None:
        super().__init__(what, fix=fix, code=code)
        self.code = code


def refused_for_good(error: PublishRefusedError) -> bool:
    """Whether the same message would be refused again, however often it is sent."""
    return error.code in _FOR_GOOD


def is_permanent(error: BrokerError) -> bool:
    """Whether only a change of configuration can help; a device keeps trying, a person is told."""
    return bool(error.evidence.get("permanent"))


def reason_text(code: int) -> str:
    """The reason code in words."""
    return f"{_MESSAGE.get(code, 'reason code')} (0x{code:02X})"


def connect_error(broker: str, code: int, *, named: bool) -> BrokerError:
    """What a refused CONNECT means; `named` when a user name was given."""
    if code == 0x87 and named:
        code = 0x86  # mosquitto does not tell a wrong password from a missing right
    what, fix = _CONNECT.get(code, (f"refused the connection with reason code 0x{code:02X}", ""))
    return BrokerError(f"broker {broker} {what}", fix=fix, code=code, permanent=code in _PERMANENT)


def disconnect_error(broker: str, code: int, detail: str) -> BrokerError:
    """What a lost connection means; `code` is the broker's DISCONNECT reason, or 0 without one."""
    if code in _DISCONNECT:
        what, fix = _DISCONNECT[code]
        return BrokerError(f"broker {broker} {what}", fix=fix, code=code, peer_closed=True)
    if "ALERT" in detail.upper():
        return BrokerError(
            f"broker {broker} ended the TLS session: {detail}",
            fix="check that the client certificate and key are those that the broker's CA has signed",
            permanent=True,
            peer_closed=True,
        )
    said = f" with reason code 0x{code:02X}" if code >= REFUSED else f": {detail}" if detail else ""
    return BrokerError(f"connection to broker {broker} was closed{said}", code=code, peer_closed=True)


def subscribe_error(broker: str, filter_: str, code: int) -> BrokerError:
    """What a refused SUBSCRIBE means."""
    return BrokerError(
        f"broker {broker} refused the subscription {filter_!r}: {reason_text(code)}",
        fix="allow it in the broker's access list"
        if code in (0x80, 0x87)
        else "check what this broker supports",
        code=code,
        permanent=True,
    )


def publish_error(broker: str, topic: str, code: int, size: int) -> PublishRefusedError:
    """What a refused PUBLISH means."""
    fix = {
        0x87: "allow this user to write to the topic in the broker's access list",
        TOO_LARGE: "raise the broker's packet limit to 128 KiB",
    }.get(code, "look into the broker's log")
    return PublishRefusedError(
        f"broker {broker} refused {size} bytes on {topic!r}: {reason_text(code)}", fix=fix, code=code
    )
