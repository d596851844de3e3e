"""Tokens in a table of their own, so that they can be renewed; revocation; operator keys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Devices keep the tokens that they have."""
    op.create_table(
        "device_tokens",
        sa.Column("sha256", sa.String(), primary_key=True),
        sa.Column("device", sa.String(), sa.ForeignKey("devices.id"), nullable=False, index=True),
        sa.Column("issued_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("used", sa.Boolean(), nullable=False),
    )
    op.execute(
        "INSERT INTO device_tokens (sha256, device, issued_at, expires_at, used) "
        "SELECT token_sha256, id, enrolled_at, expires_at, true FROM devices"
    )
    with op.batch_alter_table("devices") as devices:
        devices.drop_column("token_sha256")
        devices.drop_column("expires_at")
        devices.add_column(sa.Column("revoked_at", sa.DateTime(), nullable=True))
    op.create_table(
        "operator_keys",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False, unique=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
    )
