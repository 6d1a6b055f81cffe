"""The network's list of edges, as the network key signed it: every edge that shares the store has the newest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Without a row: an edge that starts puts in the list that it has."""
    op.create_table(
        "edges",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("signed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_edges"),
    )


def downgrade() -> None:
    """Each edge has its own copy of the list."""
    op.drop_table("edges")
