"""The MQTT link: the one place that knows the client library, its faults and how to live with them."""

from edgecap.mqtt.broker import BROKER_VARIABLE, Broker, find_broker, parse_broker
from edgecap.mqtt.client import Message, Will
from edgecap.mqtt.connection import Connection, connect
from edgecap.mqtt.link import Backoff, keep_connected
from edgecap.mqtt.reasons import PublishRefusedError, is_permanent, refused_for_good

__all__ = [
    "BROKER_VARIABLE",
    "Backoff",
    "Broker",
    "Connection",
    "Message",
    "PublishRefusedError",
    "Will",
    "connect",
    "find_broker",
    "is_permanent",
    "keep_connected",
    "parse_broker",
    "refused_for_good",
]
