"""Number each write as a batch, so that a reader can ask what was written since."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Number existing rows as batch 0, and give the log an id."""
    op.create_table(
        "head",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("batch", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "removed",
        sa.Column("series", sa.Integer, primary_key=True),
        sa.Column("batch", sa.BigInteger, nullable=False),
    )
    for table in ("series", "observation"):
        op.add_column(table, sa.Column("batch", sa.BigInteger, nullable=False, server_default="0"))
        op.create_index(f"{table}_batch", table, ["batch"])
    op.execute("insert into head (id, batch) values (1, 0)")
    op.execute("delete from meta where key = 'schema_version'")
    op.bulk_insert(
        sa.table("meta", sa.column("key", sa.Text), sa.column("value", sa.Text)),
        [{"key": "log_id", "value": uuid.uuid4().hex}],
    )
