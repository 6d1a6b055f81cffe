"""Tunnels, routes, devices, tombstones, and the counter that orders every change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the first tables, with the counter at 0."""
    state = op.create_table(
        "state",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_state"),
    )
    op.bulk_insert(state, [{"id": 1, "epoch": 0, "revision": 0}])
    _create_tunnels()
    _create_routes()
    _create_devices()
    op.create_table(
        "tombstones",
        sa.Column("id", sa.String(52), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("deleted", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tombstones"),
    )
    op.create_index("ix_tombstones_revision", "tombstones", ["revision"])


def downgrade() -> None:
    """Leaves nothing."""
    for table in ("tombstones", "devices", "routes", "tunnels", "state"):
        op.drop_table(table)


def _create_tunnels() -> None:
    op.create_table(
        "tunnels",
        sa.Column("id", sa.String(52), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("authority", sa.LargeBinary, nullable=False),
        sa.Column("statement", sa.LargeBinary, nullable=False),
        sa.Column("signed", sa.BigInteger, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tunnels"),
        sa.UniqueConstraint("name", name="uq_tunnels_name"),
    )


def _create_routes() -> None:
    op.create_table(
        "routes",
        sa.Column("id", sa.String(52), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("value", sa.String(255), nullable=False),
        sa.Column("tunnel", sa.String(52), nullable=False),
        sa.Column("vnet", sa.String(63), nullable=False),
        sa.Column("comment", sa.String(255), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_routes"),
        sa.ForeignKeyConstraint(["tunnel"], ["tunnels.id"], name="fk_routes_tunnel"),
        sa.UniqueConstraint("vnet", "kind", "value", name="uq_routes_vnet"),
    )
    op.create_index("ix_routes_tunnel", "routes", ["tunnel"])


def _create_devices() -> None:
    op.create_table(
        "devices",
        sa.Column("id", sa.String(52), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("thumbprint", sa.String(64), nullable=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("vnet", sa.String(63), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("groups", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("enrolled", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_devices"),
        sa.UniqueConstraint("name", name="uq_devices_name"),
        sa.UniqueConstraint("secret_hash", name="uq_devices_secret_hash"),
        sa.UniqueConstraint("thumbprint", name="uq_devices_thumbprint"),
    )
