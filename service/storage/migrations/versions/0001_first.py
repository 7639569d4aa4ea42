"""Series and their observations, each value with its revision."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "meta",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "series",
        sa.Column("series", sa.Integer, primary_key=True),
        sa.Column("unique_id", sa.Text, nullable=False, unique=True),
        sa.Column("static", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "observation",
        sa.Column("series", sa.Integer, sa.ForeignKey("series.series"), primary_key=True),
        sa.Column("ds", sa.BigInteger, primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True),
        sa.Column("y", sa.Double),
        sa.Column("covariates", sa.Text),
        sa.Column("filled", sa.Boolean, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
