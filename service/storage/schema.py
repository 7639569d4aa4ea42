"""The tables of the observation log."""

import sqlalchemy as sa

metadata = sa.MetaData()
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
series = sa.Table(
    "series",
    metadata,
    sa.Column("series", sa.Integer, primary_key=True),
    sa.Column("unique_id", sa.Text, nullable=False, unique=True),
    sa.Column("static", sa.Text, comment="JSON object of static covariates"),
    sa.Column("created_at", sa.BigInteger, nullable=False, comment="Unix milliseconds"),
    sa.Column("batch", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index("series_batch", "batch"),
)
removed = sa.Table(
    "removed",
    metadata,
    sa.Column("series", sa.Integer, primary_key=True),
    sa.Column("batch", sa.BigInteger, nullable=False),
)
head = sa.Table(
    "head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("batch", sa.BigInteger, nullable=False, comment="last batch written"),
    sa.Column("width", sa.BigInteger, comment="stamps in one bucket of observations"),
)
observation = sa.Table(
    "observation",
    metadata,
    sa.Column("bucket", sa.BigInteger, primary_key=True, comment="ds // head.width"),
    sa.Column("series", sa.Integer, primary_key=True),
    sa.Column("ds", sa.BigInteger, primary_key=True, comment="nanoseconds, or the integer step"),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("y", sa.Double, comment="null: not observed"),
    sa.Column("covariates", sa.Text, comment="JSON object"),
    sa.Column("filled", sa.Boolean, nullable=False, comment="filled by policy"),
    sa.Column("recorded_at", sa.BigInteger, nullable=False, comment="Unix milliseconds"),
    sa.Column("batch", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index("observation_batch", "batch"),
    sqlite_with_rowid=False,
)
pruned = sa.Table(
    "pruned",
    metadata,
    sa.Column("series", sa.Integer, sa.ForeignKey("series.series"), primary_key=True),
    sa.Column("first_ds", sa.BigInteger, nullable=False, comment="first stamp that is kept"),
    sa.Column("steps", sa.BigInteger, nullable=False, comment="steps removed so far"),
    sa.Column("newest", sa.BigInteger, nullable=False, comment="last batch that wrote them"),
    sa.Column("batch", sa.BigInteger, nullable=False),
    sa.Index("pruned_batch", "batch"),
)
base = sa.Table(
    "base",
    metadata,
    sa.Column("series", sa.Integer, sa.ForeignKey("series.series"), primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True, comment="digest of the model"),
    sa.Column("steps", sa.BigInteger, nullable=False, comment="steps that the state has seen"),
    sa.Column(
        "state", sa.LargeBinary, nullable=False, comment="before the first step that is kept"
    ),
)
