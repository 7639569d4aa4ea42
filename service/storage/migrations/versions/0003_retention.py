"""Add tables for pruned series and their base states."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables; nothing is pruned yet."""
    op.create_table(
        "pruned",
        sa.Column("series", sa.Integer, sa.ForeignKey("series.series"), primary_key=True),
        sa.Column("first_ds", sa.BigInteger, nullable=False),
        sa.Column("steps", sa.BigInteger, nullable=False),
        sa.Column("newest", sa.BigInteger, nullable=False),
        sa.Column("batch", sa.BigInteger, nullable=False),
    )
    op.create_index("pruned_batch", "pruned", ["batch"])
    op.create_table(
        "base",
        sa.Column("series", sa.Integer, sa.ForeignKey("series.series"), primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("steps", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
