"""Settings of a command: where they are found, and which source wins."""

from pathlib import Path

import pytest

from forecast.errors import ConfigError, UnknownSetting
from pipelines.cli.project import find
from pipelines.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    """A project two folders up from where the command runs."""
    (tmp_path / "statecast.toml").write_text(
        '[project]\nname = "file"\nsource = "sales.csv"\n[train]\nseed = 1\n[model]\ncell = "gru"\n'
    )
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    return below


def test_file_is_found_up_the_tree_and_its_paths_are_its_own(folder):
    """The nearest statecast.toml above counts, and `source` stands beside it."""
    found = find(None, environ={}, start=folder)

    assert found.file == folder.parents[1] / "statecast.toml"
    assert Path(found.project.source or "") == folder.parents[1] / "sales.csv"
    assert found.config.model.cell == "gru"


def test_databases_of_the_file_stand_beside_it(tmp_path):
    """SQLite by a relative path, with or without a driver; what is absolute stays."""
    written = {"source": "sqlite+pysqlite:///sales.db", "tracking_uri": "sqlite:///runs/mlflow.db"}
    lines = [f'{key} = "{value}"' for key, value in written.items()]
    (tmp_path / "statecast.toml").write_text("\n".join(["[project]", *lines]))
    (tmp_path / "below").mkdir()

    found = find(None, environ={}, start=tmp_path / "below").project

    assert found.source == f"sqlite+pysqlite:///{tmp_path / 'sales.db'}"
    assert found.tracking_uri == f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    for absolute in ("sqlite:////srv/sales.db", "postgresql://host/sales"):
        (tmp_path / "statecast.toml").write_text(f'[project]\nsource = "{absolute}"\n')
        assert find(None, environ={}, start=tmp_path).project.source == absolute


def test_option_beats_config_beats_environment_beats_file(folder, tmp_path):
    """Each source wins over the ones after it, key by key."""
    (tmp_path / "other.toml").write_text('[project]\nname = "config"\n[train]\nseed = 3\n')
    environ = {"STATECAST_NAME": "variable", "STATECAST_TRAIN__SEED": "2", "STATECAST_WINDOWS": "4"}

    by_file = find(None, environ={}, start=folder)
    by_variable = find(None, environ=environ, start=folder)
    by_config = find(tmp_path / "other.toml", environ=environ, start=folder)
    by_option = find(
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


def test_lists_and_words_in_variables_are_read(tmp_path):
    """A variable is read as TOML would read it; a bare word is text."""
    environ = {
        "STATECAST_DATA__KNOWN_FUTURE": '["price", "deal"]',
        "STATECAST_DATA__FREQ": "W-MON",
        "STATECAST_MODEL__HORIZON": "8",
    }

    config = find(None, environ=environ, start=tmp_path).config

    assert config.data.known_future == ("price", "deal")
    assert (config.data.freq, config.model.horizon) == ("W-MON", 8)


def test_server_variables_are_not_ours(tmp_path):
    """What the server alone knows does not disturb a command."""
    environ = {"STATECAST_PORT": "9000", "STATECAST_LIMITS__MAX_SERIES": "5"}

    assert find(None, environ=environ, start=tmp_path).project.name == "statecast"


@pytest.mark.parametrize(
    ("text", "error", "help"),
    [
        ('[project]\nnmae = "x"\n', UnknownSetting, "did you mean 'name'?"),
        ("[trian]\nseed = 1\n", UnknownSetting, "did you mean [train]?"),
        ("[train]\nmax_step = 1\n", UnknownSetting, "did you mean 'max_steps'?"),
        ("[project]\nwindows = 0\n", ConfigError, ""),
        ('[project]\nwindows = "two"\n', ConfigError, ""),
        ("[project\n", ConfigError, ""),
    ],
)
def test_mistake_in_the_file_is_refused_with_a_way_out(tmp_path, text, error, help):
    """A typo does not pass silently, and the message names the file."""
    (tmp_path / "statecast.toml").write_text(text)

    with pytest.raises(error) as caught:
        find(None, environ={}, start=tmp_path)

    assert caught.value.help == help
    assert "statecast.toml" in caught.value.where


def test_config_file_that_is_not_there_is_refused(tmp_path):
    """A misspelt --config does not fall back to another file."""
    with pytest.raises(UsageError, match="no such settings file"):
        find(tmp_path / "nope.toml", environ={}, start=tmp_path)


def test_a_server_of_several_models_takes_neither_model_nor_data_of_the_project(
    folder, monkeypatch
):
    """Each is named by the variable alone; which log a file is for has to be said."""
    serving = pytest.importorskip("pipelines.cli.launch")
    (folder.parents[1] / "sales.csv").touch()
    found = find(None, environ={}, start=folder)
    alone = serving.settings_of(found)
    monkeypatch.setenv("STATECAST_MODELS", '{"sales": "a", "stocks": "b"}')

    several = serving.settings_of(found)

    assert (alone.model, alone.seed_data) == ("models:/file@champion", Path(found.project.source))
    assert several.seed_data is None
    assert [one.model for one in several.each().values()] == ["a", "b"]
    assert serving.base_urls(several, "http://h") == [
        "http://h/models/sales",
        "http://h/models/stocks",
    ]
    with pytest.raises(ConfigError, match="a log of its own"):
        serving.read_into_log(several, "sales.csv", found.config.data)
    with pytest.raises(ConfigError, match="both set"):
        serving.settings_of(found, model="c")
