"""The CA certificate that a tunnel had before a rotation, and until when it holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No tunnel has one."""
    op.add_column("tunnels", sa.Column("former", sa.LargeBinary, nullable=True))
    op.add_column("tunnels", sa.Column("until", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    """Keys from before a rotation hold no longer."""
    op.drop_column("tunnels", "until")
    op.drop_column("tunnels", "former")
