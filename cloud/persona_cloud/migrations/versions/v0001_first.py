"""The tables as they were before there were migrations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make devices, edits, answers and measurements."""
    op.create_table(
        "devices",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("token_sha256", sa.String(), nullable=False, unique=True),
        sa.Column("platform", sa.String(), nullable=False),
        sa.Column("enrolled_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("sequence", _NUMBER, nullable=False),
    )
    op.create_table(
        "issued_edits",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("device", sa.String(), sa.ForeignKey("devices.id"), nullable=False),
        sa.Column("sequence", _NUMBER, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("bundle", sa.String(), nullable=False),
        sa.Column("prototype", sa.Integer(), nullable=True),
        sa.Column("issued_at", sa.DateTime(), nullable=False, index=True),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("latent", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("device", "sequence"),
    )
    op.create_table(
        "kept_answers",
        sa.Column("device", sa.String(), sa.ForeignKey("devices.id"), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("edit", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False, index=True),
    )
    op.create_table(
        "measurements",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("device", sa.String(), sa.ForeignKey("devices.id"), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.Column("model", sa.String(), nullable=False, index=True),
        sa.Column("bundle", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("precision", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
    )
