"""On SQLite: what many events have in common in a table of its own, and one short index on it instead of two."""

from alembic import op

revision = "0003"
down_revision = "0002"

_KINDS = """CREATE TABLE commons_events_kinds (
  kind_id INTEGER NOT NULL PRIMARY KEY, category TEXT NOT NULL, event_type TEXT NOT NULL, schema_version TEXT NOT NULL,
  format TEXT NOT NULL,
  CONSTRAINT commons_events_kinds_words UNIQUE (category, event_type, schema_version, format))"""
_FILL_KINDS = """INSERT INTO commons_events_kinds (category, event_type, schema_version, format)
SELECT category, event_type, schema_version, format FROM commons_events_events
GROUP BY 1, 2, 3, 4 ORDER BY min(position)"""
_EVENTS = """CREATE TABLE commons_events_events_0003 (
  position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, stream_id INTEGER NOT NULL, version INTEGER NOT NULL,
  kind_id INTEGER NOT NULL, event_id TEXT NOT NULL, data TEXT, data_bytes BLOB, tags TEXT, timestamp DATETIME NOT NULL,
  recorded_at DATETIME DEFAULT CURRENT_TIMESTAMP NOT NULL,
  CONSTRAINT commons_events_events_stream UNIQUE (stream_id, version))"""
_FILL_EVENTS = """INSERT INTO commons_events_events_0003 (position, stream_id, version, kind_id, event_id, data,
  data_bytes, tags, timestamp, recorded_at)
SELECT e.position, e.stream_id, e.version, k.kind_id, e.event_id, e.data, e.data_bytes, e.tags, e.timestamp,
  e.recorded_at
FROM commons_events_events e CROSS JOIN commons_events_kinds k
  ON (k.category, k.event_type, k.schema_version, k.format) = (e.category, e.event_type, e.schema_version, e.format)
ORDER BY e.position"""
# so that a position is not given twice: the last events may have been deleted
_KEEP_POSITIONS = (
    "DELETE FROM sqlite_sequence WHERE name = 'commons_events_events_0003'",
    "INSERT INTO sqlite_sequence (name, seq) "
    "SELECT 'commons_events_events_0003', seq FROM sqlite_sequence WHERE name = 'commons_events_events'",
)
_SWAP = (
    "DROP TABLE commons_events_events",
    "ALTER TABLE commons_events_events_0003 RENAME TO commons_events_events",
    "CREATE INDEX commons_events_events_id ON commons_events_events (event_id)",
    "CREATE INDEX commons_events_events_kind ON commons_events_events (kind_id)",
    "CREATE INDEX commons_events_events_tags ON commons_events_events (tags) WHERE tags IS NOT NULL",
)


def upgrade() -> None:
    """Copy the events into the new table, with the positions that they have; on PostgreSQL all stays as it is."""
    if op.get_bind().dialect.name != "sqlite":
        return
    for statement in (_KINDS, _FILL_KINDS, _EVENTS, _FILL_EVENTS, *_KEEP_POSITIONS, *_SWAP):
        op.execute(statement)
