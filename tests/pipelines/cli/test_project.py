"""Settings of a command: their sources, and which source wins."""

from pathlib import Path

import pytest

from forecast.errors import ConfigError, UnknownSetting
from pipelines.cli.project import resolve_project
from pipelines.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    """Return a folder two levels below a statecast.toml."""
    (tmp_path / "statecast.toml").write_text(
        '[project]\nname = "file"\nsource = "sales.csv"\n[train]\nseed = 1\n[model]\ncell = "gru"\n'
    )
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    return below


def test_the_nearest_file_above_is_used_and_its_paths_are_relative_to_it(folder):
    """A command may run in any folder below the one of statecast.toml."""
    settings = resolve_project(None, environ={}, start=folder)

    assert settings.file == folder.parents[1] / "statecast.toml"
    assert Path(settings.project.source or "") == folder.parents[1] / "sales.csv"
    assert settings.config.model.cell == "gru"


def test_sqlite_paths_in_a_file_are_relative_to_it(tmp_path):
    """A driver makes no difference; absolute paths and other databases stay as they are."""
    urls = {"source": "sqlite+pysqlite:///sales.db", "tracking_uri": "sqlite:///runs/mlflow.db"}
    lines = [f'{key} = "{value}"' for key, value in urls.items()]
    (tmp_path / "statecast.toml").write_text("\n".join(["[project]", *lines]))
    (tmp_path / "below").mkdir()

    project = resolve_project(None, environ={}, start=tmp_path / "below").project

    assert project.source == f"sqlite+pysqlite:///{tmp_path / 'sales.db'}"
    assert project.tracking_uri == f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    for absolute in ("sqlite:////srv/sales.db", "postgresql://host/sales"):
        (tmp_path / "statecast.toml").write_text(f'[project]\nsource = "{absolute}"\n')
        assert resolve_project(None, environ={}, start=tmp_path).project.source == absolute


def test_option_beats_config_beats_environment_beats_file(folder, tmp_path):
    """Each source overrides the later ones, key by key."""
    (tmp_path / "other.toml").write_text('[project]\nname = "config"\n[train]\nseed = 3\n')
    environ = {"STATECAST_NAME": "variable", "STATECAST_TRAIN__SEED": "2", "STATECAST_WINDOWS": "4"}

    by_file = resolve_project(None, environ={}, start=folder)
    by_variable = resolve_project(None, environ=environ, start=folder)
    by_config = resolve_project(tmp_path / "other.toml", environ=environ, start=folder)
    by_option = resolve_project(
        tmp_path / "other.toml",
        {"project.name": "option", "train.seed": 5},
        environ=environ,
        start=folder,
    )

    assert (by_file.project.name, by_file.config.train.seed) == ("file", 1)
    assert (by_variable.project.name, by_variable.config.train.seed) == ("variable", 2)
    assert (by_config.project.name, by_config.config.train.seed) == ("config", 3)
    assert (by_option.project.name, by_option.config.train.seed) == ("option", 5)
    assert by_config.project.windows == 4
    assert by_option.origin["train.seed"] == "option"


def test_variables_are_read_as_toml_or_as_text(tmp_path):
    """Text that is not valid TOML, such as a bare word, stays text."""
    environ = {
        "STATECAST_DATA__KNOWN_FUTURE": '["price", "deal"]',
        "STATECAST_DATA__FREQ": "W-MON",
        "STATECAST_MODEL__HORIZON": "8",
    }

    config = resolve_project(None, environ=environ, start=tmp_path).config

    assert config.data.known_future == ("price", "deal")
    assert (config.data.freq, config.model.horizon) == ("W-MON", 8)


def test_variables_of_the_server_are_ignored(tmp_path):
    """A variable that only the server knows is not an unknown setting."""
    environ = {"STATECAST_PORT": "9000", "STATECAST_LIMITS__MAX_SERIES": "5"}

    assert resolve_project(None, environ=environ, start=tmp_path).project.name == "statecast"


@pytest.mark.parametrize(
    ("text", "error", "hint"),
    [
        ('[project]\nnmae = "x"\n', UnknownSetting, "did you mean 'name'?"),
        ("[trian]\nseed = 1\n", UnknownSetting, "did you mean [train]?"),
        ("[train]\nmax_step = 1\n", UnknownSetting, "did you mean 'max_steps'?"),
        ("[project]\nwindows = 0\n", ConfigError, ""),
        ('[project]\nwindows = "two"\n', ConfigError, ""),
        ("[project\n", ConfigError, ""),
    ],
)
def test_a_mistake_in_the_file_is_refused_with_help(tmp_path, text, error, hint):
    """The error names the file and the closest known key."""
    (tmp_path / "statecast.toml").write_text(text)

    with pytest.raises(error) as error_info:
        resolve_project(None, environ={}, start=tmp_path)

    assert error_info.value.help == hint
    assert "statecast.toml" in error_info.value.where


def test_a_missing_config_file_is_refused(tmp_path):
    """A misspelt --config does not fall back to statecast.toml."""
    with pytest.raises(UsageError, match="no such settings file"):
        resolve_project(tmp_path / "nope.toml", environ={}, start=tmp_path)


def test_a_server_of_several_models_takes_neither_model_nor_data_of_the_project(
    folder, monkeypatch
):
    """STATECAST_MODELS names all models, and a table is imported into the log of one of them."""
    launch = pytest.importorskip("pipelines.cli.launch")
    (folder.parents[1] / "sales.csv").touch()
    settings = resolve_project(None, environ={}, start=folder)
    single = launch.build_server_settings(settings)
    monkeypatch.setenv("STATECAST_MODELS", '{"sales": "a", "stocks": "b"}')

    several = launch.build_server_settings(settings)

    source = Path(settings.project.source)
    assert (single.model, single.seed_data) == ("models:/file@champion", source)
    assert several.seed_data is None
    assert [one.model for one in several.each().values()] == ["a", "b"]
    assert launch.list_base_urls(several, "http://h") == [
        "http://h/models/sales",
        "http://h/models/stocks",
    ]
    with pytest.raises(ConfigError, match="a log of its own"):
        launch.import_into_log(several, "sales.csv", settings.config.data)
    with pytest.raises(ConfigError, match="both set"):
        launch.build_server_settings(settings, model="c")
