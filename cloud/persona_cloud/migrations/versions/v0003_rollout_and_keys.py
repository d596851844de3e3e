"""Versions and their rollout, outcomes on devices, keys that devices learn, dashboard sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables; a server registers the version that it is started with."""
    _rollout()
    _keys()
    op.create_table(
        "readiness",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("written_at", sa.DateTime(), nullable=False),
    )
    op.execute("INSERT INTO readiness (id, written_at) VALUES (1, '2026-01-01 00:00:00')")
    op.create_table(
        "dashboard_sessions",
        sa.Column("sha256", sa.String(), primary_key=True),
        sa.Column("operator_key", sa.String(), sa.ForeignKey("operator_keys.id"), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False, index=True),
    )


def _rollout() -> None:
    op.create_table(
        "versions",
        sa.Column("bundle", sa.String(), primary_key=True),
        sa.Column("line", sa.String(), nullable=False, index=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("published_at", sa.DateTime(), nullable=False),
        sa.Column("published_by", sa.String(), nullable=True),
        sa.Column("retired_at", sa.DateTime(), nullable=True),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
    )
    version = "versions.bundle"
    op.create_table(
        "rollouts",
        sa.Column("line", sa.String(), primary_key=True),
        sa.Column("stable", sa.String(), sa.ForeignKey(version), nullable=False),
        sa.Column("changed_at", sa.DateTime(), nullable=False),
        sa.Column("previous", sa.String(), sa.ForeignKey(version), nullable=True),
        sa.Column("candidate", sa.String(), sa.ForeignKey(version), nullable=True),
        sa.Column("percent", sa.Double(), nullable=False),
        sa.Column("max_failure_rate", sa.Double(), nullable=False),
        sa.Column("min_reports", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("stopped_because", sa.String(), nullable=True),
    )
    op.create_table(
        "rollout_events",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("line", sa.String(), nullable=False, index=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("by", sa.String(), nullable=True),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("bundle", sa.String(), nullable=False),
        sa.Column("percent", sa.Double(), nullable=False),
    )
    op.create_table(
        "outcomes",
        sa.Column("device", sa.String(), sa.ForeignKey("devices.id"), primary_key=True),
        sa.Column("bundle", sa.String(), sa.ForeignKey(version), primary_key=True),
        sa.Column("code", sa.String(), nullable=True),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.Index("ix_outcomes_bundle_code", "bundle", "code"),
    )


def _keys() -> None:
    op.create_table(
        "trusted_keys",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("added_at", sa.DateTime(), nullable=False),
        sa.Column("until", sa.DateTime(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
    )
    op.create_table(
        "key_documents",
        sa.Column("sequence", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
    )
