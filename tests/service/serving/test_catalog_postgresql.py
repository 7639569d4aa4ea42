"""Several models on one PostgreSQL: a schema for each, made, migrated and pruned by itself."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from forecast.bundle import load_bundle
from service import log_admin as offline
from service.ingest.importer import import_history
from service.settings import Settings
from tests.service.serving.test_catalog import last_ds


@pytest.fixture
def schemas(postgres) -> Iterator[str]:
    """A database, without the schemas of the test's models afterwards."""
    yield postgres
    engine = sa.create_engine(postgres)
    with engine.begin() as connection:
        for name in ("sales", "4-stocks"):
            connection.execute(sa.schema.DropSchema(name, cascade=True, if_exists=True))
    engine.dispose()


def test_on_postgresql_each_model_has_a_schema(schemas, serve_named, monthly_bundle, weekly_bundle):
    """Made where it is missing; logs of two frequencies in one database, migrated side by side."""
    bundles = {"sales": monthly_bundle, "4-stocks": weekly_bundle}
    client = serve_named(bundles, database_url=schemas, unknown_series="create")
    row = {"unique_id": "tea", "ds": "2019-01-01", "y": 4.0}
    assert client.post("/models/sales/v1/observations", json={"observations": [row]}).is_success
    assert client.get("/models/sales/v1/log").is_success
    client.__exit__(None, None, None)

    again = serve_named(bundles, database_url=schemas)

    assert last_ds(again, "sales", "tea") == "2019-01-01"
    assert again.get("/models/4-stocks/v1/series").json()["total"] == 0
    engine = sa.create_engine(schemas)
    for name, freq in (("sales", '"MS"'), ("4-stocks", '"W-THU"')):
        assert {"alembic_version", "observation"} <= {*sa.inspect(engine).get_table_names(name)}
        with engine.connect() as connection:
            found = connection.execute(
                sa.text(f"select value from \"{name}\".meta where key = 'freq'")
            ).scalar_one()
        assert found == freq
    engine.dispose()


def test_on_postgresql_the_commands_reach_the_log_of_one_model(
    schemas, monthly, monthly_bundle, tmp_path
):
    """In its schema: what is told, counted and taken out is of that model."""
    models = dict.fromkeys(("sales", "4-stocks"), str(monthly_bundle))
    each = Settings(models=models, database_url=schemas, data_dir=tmp_path).each()
    bundle = load_bundle(monthly_bundle)
    for settings in each.values():
        import_history(settings.log_url, monthly, bundle.config.data)

    taken = offline.prune_log(
        each["sales"], bundle, steps=12, before=None, vacuum=True, told=lambda done, total: None
    )

    told = {name: offline.describe(settings) for name, settings in each.items()}
    assert taken.rows == 540
    assert [told[name]["rows"] for name in models] == [60, 600]
    assert told["sales"]["bytes"] > 0
    assert told["sales"]["place"].endswith("schema=sales")
