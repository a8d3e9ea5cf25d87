"""Delivers the spool: publish, await ingest's receipt, release; resend, hold back, set aside."""

from edgecap.uplink.statistics import UplinkStatistics
from edgecap.uplink.uplink import Uplink

__all__ = ["Uplink", "UplinkStatistics"]
