"""The CA certificate that a tunnel had before a rotation, and until when it holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No tunnel has one."""
    with op.batch_alter_table("tunnels") as table:
        table.add_column(sa.Column("former", sa.LargeBinary, nullable=True))
        table.add_column(sa.Column("until", sa.BigInteger, nullable=False, server_default=sa.text("0")))


def downgrade() -> None:
    """Keys from before a rotation hold no longer."""
    with op.batch_alter_table("tunnels") as table:
        table.drop_column("until")
        table.drop_column("former")
