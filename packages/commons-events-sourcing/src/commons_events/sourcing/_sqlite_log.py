"""SQLite's write-ahead log at its full length from early on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

__all__ = ["lengthen_log"]

_PAGES = 1_100
"""A little more than what SQLite lets its log come to before it begins again at its start (wal_autocheckpoint)."""
_FILL = (
    "INSERT INTO commons_events_snapshots (id, category, kind, version, schema_version, data, taken_at) "
    "VALUES ('', '', '', 0, '', zeroblob(?), '')"
)


def lengthen_log(raw: sqlite3.Connection, path: str) -> None:
    """Let the log file have at once the length that it comes to anyhow.

    While a file grows, each commit has to wait until the file system has noted its new length, which takes several
    times as long as writing over what is there. A transaction that is larger than the cache goes to the log early; it
    is rolled back, and leaves nothing but the room. In the writer's thread, outside a transaction.
    """
    size: int = raw.execute("PRAGMA page_size").fetchone()[0]
    log = Path(f"{path}-wal")
    try:
        if log.stat().st_size >= _PAGES * size:
            return
        cache: int = raw.execute("PRAGMA cache_size").fetchone()[0]
        raw.execute("PRAGMA cache_size = 16")
        try:
            raw.execute("BEGIN IMMEDIATE")
            raw.execute(_FILL, (_PAGES * size,))
        finally:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raw.execute(f"PRAGMA cache_size = {cache}")
    except (OSError, sqlite3.Error):
        return  # no room on the disk, or another process writes: it goes without
