"""Several models on one PostgreSQL database, each with a schema of its own."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from forecast.bundle import load_bundle
from service import log_admin
from service.ingest.importer import import_history
from service.settings import Settings
from tests.helpers.service import last_stamp


@pytest.fixture
def schemas(postgres) -> Iterator[str]:
    """Return a database URL; the schemas of the test's models are dropped at the end."""
    yield postgres
    engine = sa.create_engine(postgres)
    with engine.begin() as connection:
        for name in ("sales", "4-stocks"):
            connection.execute(sa.schema.DropSchema(name, cascade=True, if_exists=True))
    engine.dispose()


def test_on_postgresql_each_model_has_a_schema(schemas, serve_named, monthly_bundle, weekly_bundle):
    """Missing schemas are created; logs of two frequencies are migrated side by side."""
    bundles = {"sales": monthly_bundle, "4-stocks": weekly_bundle}
    client = serve_named(bundles, database_url=schemas, unknown_series="create")
    row = {"unique_id": "tea", "ds": "2019-01-01", "y": 4.0}
    assert client.post("/models/sales/v1/observations", json={"observations": [row]}).is_success
    assert client.get("/models/sales/v1/log").is_success
    client.__exit__(None, None, None)

    restarted = serve_named(bundles, database_url=schemas)

    assert last_stamp(restarted, "sales", "tea") == "2019-01-01"
    assert restarted.get("/models/4-stocks/v1/series").json()["total"] == 0
    engine = sa.create_engine(schemas)
    for name, freq in (("sales", '"MS"'), ("4-stocks", '"W-THU"')):
        assert {"alembic_version", "observation"} <= {*sa.inspect(engine).get_table_names(name)}
        with engine.connect() as connection:
            stored = connection.execute(
                sa.text(f"select value from \"{name}\".meta where key = 'freq'")
            ).scalar_one()
        assert stored == freq
    engine.dispose()


def test_on_postgresql_log_commands_concern_the_schema_of_one_model(
    schemas, monthly, monthly_bundle, tmp_path
):
    """Pruning one model removes no row of the other."""
    models = dict.fromkeys(("sales", "4-stocks"), str(monthly_bundle))
    each = Settings(models=models, database_url=schemas, data_dir=tmp_path).each()
    bundle = load_bundle(monthly_bundle)
    for settings in each.values():
        import_history(settings.log_url, monthly, bundle.config.data)

    pruned = log_admin.prune_log(
        each["sales"],
        bundle,
        steps=12,
        before=None,
        vacuum=True,
        on_progress=lambda done, total: None,
    )

    described = {name: log_admin.describe(settings) for name, settings in each.items()}
    assert pruned.rows == 540
    assert [described[name]["rows"] for name in models] == [60, 600]
    assert described["sales"]["bytes"] > 0
    assert described["sales"]["place"].endswith("schema=sales")
