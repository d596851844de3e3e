"""Runs revisions on the connection that `persona_cloud.database` hands over."""

from alembic import context

from persona_cloud.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
