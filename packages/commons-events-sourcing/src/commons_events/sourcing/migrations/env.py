"""Alembic's environment: `commons_events.sourcing.upgrade` gives it the connection."""

from alembic import context

from commons_events.sourcing import _tables as t

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=t.metadata_of(connection.dialect.name),
    version_table=t.versions.name,
    include_name=lambda name, kind, _: kind != "table" or name in t.NAMES,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
