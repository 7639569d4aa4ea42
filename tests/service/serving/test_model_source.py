"""Loading a model from the registry, from a directory or from the server's own copy."""

import shutil
import warnings
from pathlib import Path

import pytest

from benchmarks.speed.servers import wait_until
from forecast.bundle import load_bundle
from forecast.errors import DamagedBundle, ModelSourceError, UnknownModel
from service.ingest.importer import import_history
from service.serving import local_copy
from service.serving.local_copy import LocalCopy
from service.serving.model_source import fetch
from service.settings import Settings
from tests.helpers.service import train_tiny

NAME = "models:/juice@champion"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, weekly_bundle: Path, monthly_bundle: Path):
    """Return folder and client of an SQLite registry with two versions; `champion` is the first."""
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
    """Return settings with that registry and an empty data folder."""
    folder, client = registry
    client.set_registered_model_alias("juice", "champion", "1")
    return Settings(model=NAME, data_dir=tmp_path, tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow warns of its own code.


def test_a_registered_model_is_loaded_and_verified(home, weekly_bundle):
    """The source has name, version and alias; no file is left in the data folder."""
    source, bundle = fetch(home)

    assert (source.name, source.version, source.alias) == ("juice", "1", "champion")
    assert bundle.digest == load_bundle(weekly_bundle).digest == source.digest
    assert list(home.data_dir.iterdir()) == []


def test_the_copy_is_served_while_the_tracking_server_is_away(home, tmp_path):
    """Without registry and network the last version is served, even over a new log."""
    local_copy.save(home, LocalCopy(*fetch(home)))
    for away in (f"sqlite:///{tmp_path / 'gone.db'}", "http://127.0.0.1:9"):
        copy = local_copy.choose(home.model_copy(update={"tracking_uri": away}))
        assert copy.source.version == "1"
    assert not (tmp_path / "gone.db").exists()


@pytest.mark.parametrize("harm", ["weights.safetensors", "bundle.json"])
def test_a_damaged_copy_is_replaced_from_the_source(home, harm):
    """The digests of a copy are verified at every start."""
    fetched = LocalCopy(*fetch(home))
    local_copy.save(home, fetched)
    copy = home.data_dir / "bundles" / fetched.source.digest
    (copy / harm).write_bytes(b"noise")

    again = local_copy.choose(home)

    assert again.bundle.digest == fetched.bundle.digest
    assert not copy.exists()
    local_copy.save(home, again)
    assert load_bundle(copy).digest == fetched.bundle.digest


def test_only_the_copy_of_the_model_in_service_is_kept(home, registry):
    """Older and half-written copies are removed; directories of other names stay."""
    first = LocalCopy(*fetch(home))
    local_copy.save(home, first)
    folder = home.data_dir / "bundles"
    (folder / f".{first.source.digest[::-1]}.new").mkdir()
    (folder / "mine").mkdir()
    registry[1].set_registered_model_alias("juice", "champion", "2")
    second = LocalCopy(*fetch(home))

    local_copy.save(home, second)

    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [second.source.digest, "in_service.json", "mine"]
    )
    copy = folder / second.source.digest
    assert sorted(file.name for file in copy.iterdir()) == ["bundle.json", "weights.safetensors"]


def test_a_copy_that_cannot_be_written_is_logged_and_does_no_harm(home, caplog):
    """The next start takes the model from the source."""
    (home.data_dir / "bundles").write_text("in the way")

    local_copy.save(home, LocalCopy(*fetch(home)))

    assert "cannot keep a copy of 1" in caplog.text
    assert local_copy.choose(home).source.version == "1"


@pytest.mark.parametrize(
    "model", ["models:/nobody@champion", "models:/juice@nothing", "models:/juice/9", "models:/x"]
)
def test_an_unknown_model_is_reported_as_unknown(home, model):
    """The name, alias or version is unknown, or the source is not written correctly."""
    with pytest.raises(UnknownModel):
        fetch(home.model_copy(update={"model": model}))


def test_a_missing_registry_is_reported_with_its_place(home, tmp_path):
    """MLflow does not create an empty database in its place."""
    nowhere = home.model_copy(update={"tracking_uri": f"sqlite:///{tmp_path / 'none.db'}"})

    with pytest.raises(ModelSourceError, match="no MLflow database") as refused:
        fetch(nowhere)

    assert "none.db" in refused.value.where
    assert not (tmp_path / "none.db").exists()


def register(client, folder: Path) -> str:
    """Register the content of a folder as the next version and return its number."""
    run = client.create_run(client.get_experiment_by_name("tests").experiment_id)
    client.log_artifacts(run.info.run_id, str(folder), "model")
    source = f"{run.info.artifact_uri}/model"
    return client.create_model_version("juice", source, run.info.run_id).version


def test_a_version_without_a_bundle_is_refused(home, registry, tmp_path):
    """A pickled model is never loaded."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.pkl").write_bytes(b"\x80\x04.")
    version = register(registry[1], other)

    with pytest.raises(UnknownModel, match="holds 0 bundles"):
        fetch(home.model_copy(update={"model": f"models:/juice/{version}"}))


def test_the_error_of_a_damaged_version_names_it_in_the_registry(
    home, registry, weekly_bundle, tmp_path
):
    """It does not name the temporary folder that the version was downloaded to."""
    torn = tmp_path / "torn"
    shutil.copytree(weekly_bundle, torn)
    (torn / "weights.safetensors").write_bytes(b"torn")
    model = f"models:/juice/{register(registry[1], torn)}"

    with pytest.raises(DamagedBundle, match="cut short") as refused:
        fetch(home.model_copy(update={"model": model}))

    assert refused.value.where == model


def test_a_server_starts_and_serves_without_mlflow_and_follows_it_when_it_is_back(
    serve, registry, home, weekly, weekly_bundle, tmp_path
):
    """It uses its copy, `/readyz` reports the reason, and it goes on checking the source."""
    folder, client = registry
    second = train_tiny(weekly, load_bundle(weekly_bundle).config.data, tmp_path / "b", max_steps=6)
    newer = register(client, second)
    local_copy.save(home, LocalCopy(*fetch(home)))
    store, away = folder / "mlflow.db", folder / "away.db"
    settings = {"data_dir": home.data_dir, "tracking_uri": home.tracking_uri}
    history = f"sqlite:///{home.data_dir / 'observations.db'}"
    import_history(history, weekly, load_bundle(weekly_bundle).config.data)
    store.rename(away)
    try:
        server = serve(Path(NAME), **settings, watch_seconds=0.02)
        ready = wait_until(
            lambda: server.get("/readyz").json(), lambda ready: bool(ready["reason"])
        )
        assert ready["ready"]
        assert "no MLflow database" in ready["reason"]
        assert ready["model"]["version"] == "1"
        assert server.get("/v1/series").json()["total"] == weekly["unique_id"].nunique()
    finally:
        away.rename(store)

    wait_until(lambda: server.get("/readyz").json()["reason"], lambda reason: not reason)
    client.set_registered_model_alias("juice", "champion", newer)
    ready = wait_until(
        lambda: server.get("/readyz").json(), lambda ready: ready["model"]["version"] == str(newer)
    )

    assert ready["model"]["digest"] == load_bundle(second).digest
    server.__exit__(None, None, None)
    store.rename(away)
    try:
        again = serve(Path(NAME), **settings).get("/readyz").json()
    finally:
        away.rename(store)
    assert (again["ready"], again["model"]) == (True, ready["model"])
