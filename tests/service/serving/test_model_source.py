"""Where the model comes from: a registered version, the server's copy, and what happens without."""

import shutil
import warnings
from pathlib import Path

import pytest

from benchmarks.speed.servers import wait_until
from forecast.bundle import load_bundle
from forecast.errors import DamagedBundle, ModelSourceError, UnknownModel
from service.ingest.importer import import_history
from service.serving.local_copy import LocalCopy, choose, keep
from service.serving.model_source import fetch
from service.settings import Settings
from tests.service.conftest import train_tiny

NAME = "models:/juice@champion"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, weekly_bundle: Path, monthly_bundle: Path):
    """A registry in SQLite with two versions; `champion` is the first."""
    folder = tmp_path_factory.mktemp("registry")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        uri = f"sqlite:///{folder / 'mlflow.db'}"
        client = mlflow.MlflowClient(uri, uri)
        experiment = client.create_experiment("tests", artifact_location=str(folder / "artifacts"))
        client.create_registered_model("juice")
        for bundle in (weekly_bundle, monthly_bundle):
            run = client.create_run(experiment)
            client.log_artifacts(run.info.run_id, str(bundle), "model/artifacts/bundle")
            source = f"{run.info.artifact_uri}/model"
            client.create_model_version("juice", source, run.info.run_id)
        client.set_registered_model_alias("juice", "champion", "1")
    return folder, client


@pytest.fixture
def home(registry, tmp_path: Path) -> Settings:
    """Settings with that registry and a data folder of their own."""
    folder, client = registry
    client.set_registered_model_alias("juice", "champion", "1")
    return Settings(model=NAME, data_dir=tmp_path, tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own


def test_a_registered_model_is_found_and_verified(home, weekly_bundle):
    """Name, version and alias are told; nothing is left on the disk."""
    source, bundle = fetch(home)

    assert (source.name, source.version, source.alias) == ("juice", "1", "champion")
    assert bundle.digest == load_bundle(weekly_bundle).digest == source.digest
    assert list(home.data_dir.iterdir()) == []


def test_without_the_tracking_server_the_copy_is_served(home, tmp_path):
    """No registry, no network: the version that was in service, be the log a new one."""
    keep(home, LocalCopy(*fetch(home)))
    for away in (f"sqlite:///{tmp_path / 'gone.db'}", "http://127.0.0.1:9"):
        chosen = choose(home.model_copy(update={"tracking_uri": away}))
        assert chosen.source.version == "1"
    assert not (tmp_path / "gone.db").exists()


@pytest.mark.parametrize("harm", ["weights.safetensors", "bundle.json"])
def test_a_damaged_copy_is_fetched_again(home, harm):
    """Digests are checked at every start."""
    fetched = LocalCopy(*fetch(home))
    keep(home, fetched)
    copy = home.data_dir / "bundles" / fetched.source.digest
    (copy / harm).write_bytes(b"noise")

    again = choose(home)

    assert again.bundle.digest == fetched.bundle.digest
    assert not copy.exists()
    keep(home, again)
    assert load_bundle(copy).digest == fetched.bundle.digest


def test_only_the_copy_of_the_model_in_service_stays(home, registry):
    """Not the one before, nor what a kill left half-written; what somebody else put there does."""
    first = LocalCopy(*fetch(home))
    keep(home, first)
    folder = home.data_dir / "bundles"
    (folder / f".{first.source.digest[::-1]}.new").mkdir()
    (folder / "mine").mkdir()
    registry[1].set_registered_model_alias("juice", "champion", "2")
    second = LocalCopy(*fetch(home))

    keep(home, second)

    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [second.source.digest, "in_service.json", "mine"]
    )
    copy = folder / second.source.digest
    assert sorted(file.name for file in copy.iterdir()) == ["bundle.json", "weights.safetensors"]


def test_a_copy_that_cannot_be_written_is_told_and_nothing_is_lost(home, caplog):
    """The next start asks the source."""
    (home.data_dir / "bundles").write_text("in the way")

    keep(home, LocalCopy(*fetch(home)))

    assert "no copy of 1 is kept" in caplog.text
    assert choose(home).source.version == "1"


@pytest.mark.parametrize(
    "model", ["models:/nobody@champion", "models:/juice@nothing", "models:/juice/9", "models:/x"]
)
def test_a_model_that_is_not_there_is_told_as_such(home, model):
    """An unknown name, alias or version, or an address that is none."""
    with pytest.raises(UnknownModel):
        fetch(home.model_copy(update={"model": model}))


def test_without_registry_and_copy_there_is_nothing_to_serve(home, tmp_path):
    """Told with the place, and what to do; no empty database is left behind."""
    nowhere = home.model_copy(update={"tracking_uri": f"sqlite:///{tmp_path / 'none.db'}"})

    with pytest.raises(ModelSourceError, match="no MLflow database") as refused:
        fetch(nowhere)

    assert "none.db" in refused.value.where
    assert not (tmp_path / "none.db").exists()


def register(client, folder: Path) -> str:
    """Make what a folder holds the next version; returns its number."""
    run = client.create_run(client.get_experiment_by_name("tests").experiment_id)
    client.log_artifacts(run.info.run_id, str(folder), "model")
    source = f"{run.info.artifact_uri}/model"
    return client.create_model_version("juice", source, run.info.run_id).version


def test_a_version_without_a_bundle_is_refused(home, registry, tmp_path):
    """Nothing else is loaded in its place."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.pkl").write_bytes(b"\x80\x04.")
    version = register(registry[1], other)

    with pytest.raises(UnknownModel, match="holds 0 bundles"):
        fetch(home.model_copy(update={"model": f"models:/juice/{version}"}))


def test_a_damaged_version_is_told_by_its_place_in_the_registry(
    home, registry, weekly_bundle, tmp_path
):
    """Not by that of its copy, which is gone by then."""
    torn = tmp_path / "torn"
    shutil.copytree(weekly_bundle, torn)
    (torn / "weights.safetensors").write_bytes(b"torn")
    model = f"models:/juice/{register(registry[1], torn)}"

    with pytest.raises(DamagedBundle, match="cut short") as refused:
        fetch(home.model_copy(update={"model": model}))

    assert refused.value.where == model


def test_a_server_starts_and_goes_on_without_mlflow_and_follows_it_when_it_is_back(
    serve, registry, home, weekly, weekly_bundle, tmp_path
):
    """From its copies; `/readyz` says that the source is away, and the watch does not end."""
    folder, client = registry
    second = train_tiny(weekly, load_bundle(weekly_bundle).config.data, tmp_path / "b", max_steps=6)
    newer = register(client, second)
    keep(home, LocalCopy(*fetch(home)))
    store, away = folder / "mlflow.db", folder / "away.db"
    settings = {"data_dir": home.data_dir, "tracking_uri": home.tracking_uri}
    history = f"sqlite:///{home.data_dir / 'observations.db'}"
    import_history(history, weekly, load_bundle(weekly_bundle).config.data)
    store.rename(away)
    try:
        server = serve(Path(NAME), **settings, watch_seconds=0.02)
        told = wait_until(lambda: server.get("/readyz").json(), lambda told: bool(told["reason"]))
        assert told["ready"]
        assert "no MLflow database" in told["reason"]
        assert told["model"]["version"] == "1"
        assert server.get("/v1/series").json()["total"] == weekly["unique_id"].nunique()
    finally:
        away.rename(store)

    wait_until(lambda: server.get("/readyz").json()["reason"], lambda reason: not reason)
    client.set_registered_model_alias("juice", "champion", newer)
    told = wait_until(
        lambda: server.get("/readyz").json(), lambda told: told["model"]["version"] == str(newer)
    )

    assert told["model"]["digest"] == load_bundle(second).digest
    server.__exit__(None, None, None)
    store.rename(away)
    try:
        again = serve(Path(NAME), **settings).get("/readyz").json()
    finally:
        away.rename(store)
    assert (again["ready"], again["model"]) == (True, told["model"])
