"""The database's migrations, by Alembic: one file a change, applied when the cloud starts."""
