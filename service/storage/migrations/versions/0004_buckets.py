"""Order observations by bucket of time first, so that new steps of all series touch few pages."""

import json

import sqlalchemy as sa
from alembic import op

from forecast.calendars.calendar import Calendar
from service.errors import LogError
from service.storage.observation_table import usual_width

revision = "0004"
down_revision = "0003"
_COLUMNS = "series, ds, revision, y, covariates, filled, recorded_at, batch"


def upgrade() -> None:
    """Write all observations again in the new order."""
    op.add_column("head", sa.Column("width", sa.BigInteger))
    freq = sa.text("select value from meta where key = 'freq'")
    noted = op.get_bind().execute(freq).scalar_one_or_none()
    op.create_table(
        "sorted",
        sa.Column("bucket", sa.BigInteger, primary_key=True),
        sa.Column("series", sa.Integer, primary_key=True),
        sa.Column("ds", sa.BigInteger, primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True),
        sa.Column("y", sa.Double),
        sa.Column("covariates", sa.Text),
        sa.Column("filled", sa.Boolean, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("batch", sa.BigInteger, nullable=False, server_default="0"),
        sqlite_with_rowid=False,
    )
    rows = op.get_bind().execute(sa.text("select count(*) from observation")).scalar_one()
    if noted is None and rows:
        raise LogError(
            "the log has observations and does not say of which frequency",
            help="it was not written by this program; put a backup in its place",
        )
    if noted is not None:
        width = usual_width(Calendar(json.loads(noted)))
        op.execute(f"update head set width = {width}")
        bucket = f"(ds - ((ds % {width}) + {width}) % {width}) / {width}"  # of what is below 0, too
        op.execute(
            f"insert into sorted (bucket, {_COLUMNS}) select {bucket}, {_COLUMNS} "
            "from observation order by 1, 2, 3, 4"
        )
    op.drop_table("observation")
    op.rename_table("sorted", "observation")
    op.create_index("observation_batch", "observation", ["batch"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("alter index sorted_pkey rename to observation_pkey")
