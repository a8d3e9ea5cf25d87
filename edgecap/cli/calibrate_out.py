"""How every calibration ends: printed in words or JSON, and kept in a map."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecap.calibration import Record
    from edgecap.dataset.sync_record import SyncRecord


def keep(args: argparse.Namespace, record: Record | SyncRecord, words: str, notes: Sequence[str] = ()) -> int:
    """Print a record (`--json`, else in words), put it into the map of `--out`; notes go to stderr."""
    import msgspec

    from edgecap.dataset.calibration_map import add_to_map

    if args.out:
        record = msgspec.structs.replace(record, version=add_to_map(args.out, record))
    for note in notes:
        print(f"edgecap: note: {note}", file=sys.stderr)
    if args.json:
        print(msgspec.json.encode(record).decode())
        return 0
    print(words)
    if args.out:
        print(f"  kept in {args.out} as {record.key}, version {record.version}")
    return 0
