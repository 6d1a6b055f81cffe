"""Devices have a virtual network that the administrator put them in, and others that their users may choose."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Everybody is at home where they are, and may choose nothing."""
    op.add_column("devices", sa.Column("home", sa.String(63), nullable=False, server_default=""))
    op.add_column("devices", sa.Column("vnets", sa.JSON, nullable=False, server_default="[]"))
    op.execute("UPDATE devices SET home = vnet")


def downgrade() -> None:
    """Back to where the administrator put them."""
    op.execute("UPDATE devices SET vnet = home")
    with op.batch_alter_table("devices") as devices:
        devices.drop_column("vnets")
        devices.drop_column("home")
