"""Servers of resolver routes, and the DNS policies that were applied."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Routes that are there have no servers."""
    op.add_column("routes", sa.Column("servers", sa.JSON, nullable=False, server_default="[]"))
    op.create_table(
        "policies",
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("applied", sa.BigInteger, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("note", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_policies"),
    )


def downgrade() -> None:
    """Resolver routes mean nothing to the schema before."""
    op.drop_table("policies")
    op.execute("DELETE FROM routes WHERE kind = 'resolver'")
    with op.batch_alter_table("routes") as routes:
        routes.drop_column("servers")
