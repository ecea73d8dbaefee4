"""On SQLite: fewer pages that an append touches, by `commons_events_blocks` and versions that stand in events alone.

And tags are found by `commons_events_tags`: no index of events finds a word in a list.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

_BLOCKS = """CREATE TABLE commons_events_blocks (
  kind_id INTEGER NOT NULL, block INTEGER NOT NULL,
  CONSTRAINT commons_events_blocks_pkey PRIMARY KEY (kind_id, block)) WITHOUT ROWID"""
_FILL_BLOCKS = "INSERT INTO commons_events_blocks SELECT DISTINCT kind_id, position / 32 FROM commons_events_events"
_STREAMS = """CREATE TABLE commons_events_streams_0004 (
  stream_id INTEGER NOT NULL PRIMARY KEY, id TEXT NOT NULL, category TEXT NOT NULL, deleted_at DATETIME,
  deleted_position INTEGER, CONSTRAINT commons_events_streams_name UNIQUE (id, category))"""
# so that a position is not given twice: the last events may have been deleted
_FILL_STREAMS = """INSERT INTO commons_events_streams_0004 (stream_id, id, category, deleted_at, deleted_position)
SELECT stream_id, id, category, deleted_at, CASE WHEN deleted_at IS NOT NULL THEN
  (SELECT seq FROM sqlite_sequence WHERE name = 'commons_events_events') END
FROM commons_events_streams ORDER BY stream_id"""
_EVENTS = """CREATE TABLE commons_events_events_0004 (
  position INTEGER NOT NULL PRIMARY KEY, stream_id INTEGER NOT NULL, version INTEGER NOT NULL,
  kind_id INTEGER NOT NULL, event_id TEXT NOT NULL, data TEXT, data_bytes BLOB, tags TEXT, timestamp DATETIME NOT NULL,
  recorded_at DATETIME DEFAULT CURRENT_TIMESTAMP NOT NULL,
  CONSTRAINT commons_events_events_stream UNIQUE (stream_id, version))"""
_FILL_EVENTS = """INSERT INTO commons_events_events_0004 (position, stream_id, version, kind_id, event_id, data,
  data_bytes, tags, timestamp, recorded_at)
SELECT position, stream_id, version, kind_id, event_id, data, data_bytes, tags, timestamp, recorded_at
FROM commons_events_events ORDER BY position"""
_TAGS = """CREATE TABLE commons_events_tags (
  tag TEXT NOT NULL, position INTEGER NOT NULL,
  CONSTRAINT commons_events_tags_pkey PRIMARY KEY (tag, position)) WITHOUT ROWID"""
_FILL_TAGS = """INSERT INTO commons_events_tags SELECT DISTINCT t.value, e.position
FROM commons_events_events e, json_each(e.tags) t WHERE e.tags IS NOT NULL"""
_SWAP = (
    "DROP TABLE commons_events_streams",
    "ALTER TABLE commons_events_streams_0004 RENAME TO commons_events_streams",
    "CREATE INDEX commons_events_streams_deleted ON commons_events_streams (deleted_position) "
    "WHERE deleted_position IS NOT NULL",
    "DROP TABLE commons_events_events",
    "ALTER TABLE commons_events_events_0004 RENAME TO commons_events_events",
    "CREATE INDEX commons_events_events_id ON commons_events_events (event_id)",
)


def upgrade() -> None:
    """Copy streams and events into the new tables, as they are; on PostgreSQL all stays as it is."""
    if op.get_bind().dialect.name != "sqlite":
        return
    for statement in (_BLOCKS, _FILL_BLOCKS, _STREAMS, _FILL_STREAMS, _EVENTS, _FILL_EVENTS, _TAGS, _FILL_TAGS, *_SWAP):
        op.execute(statement)
