"""The command line: what it prints where, its exit codes, and that it starts at once."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import typer

from benchmarks.servers import server
from forecast.config import DataConfig
from forecast.errors import ForecastError
from pipelines import cli, errors
from service.importing import import_history
from tests.service.conftest import train_tiny

ROOT = Path(__file__).parent.parent
ERRORS = [
    error
    for error in vars(errors).values()
    if isinstance(error, type)
    and issubclass(error, ForecastError)
    and "code" in vars(error)
    and error is not ForecastError
]


@dataclass(frozen=True)
class Answer:
    """What one command left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict:
        return json.loads(self.out)


Invoke = Callable[..., Answer]


@pytest.fixture
def statecast(monkeypatch, capsys) -> Invoke:
    """Run a command in this process, as the script would."""

    def invoke(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["statecast", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Answer(int(ended.value.code or 0), out, err)

    return invoke


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty folder to work in, without settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STATECAST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # servers start from this folder
    return tmp_path


@pytest.fixture(scope="module")
def sales(retail) -> pd.DataFrame:
    """Six series of ten years."""
    ids = retail["unique_id"].unique()[:6]
    return retail[retail["unique_id"].isin(ids) & (retail["ds"] >= "2009-01-01")]


@pytest.fixture(scope="module")
def trained(sales, tmp_path_factory) -> Path:
    """A folder with a statecast.toml and a champion, made by the commands themselves."""
    folder = tmp_path_factory.mktemp("trained")
    sales.to_csv(folder / "sales.csv", index=False)
    (folder / "statecast.toml").write_text(
        '[project]\nsource = "sales.csv"\nname = "retail"\n[data]\nfreq = "MS"\n'
        "[model]\nhorizon = 6\nhidden_size = 8\n[train]\nmax_steps = 60\n"
    )
    done = command(folder, "train", "--baselines", "Drift", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["promoted"] is True
    return folder


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments], cwd=folder, text=True,
        capture_output=True, timeout=300, env=environment(), check=False,
    )  # fmt: skip


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STATECAST_", "MLFLOW_"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


def test_help_loads_nothing_heavy():
    """`statecast --help` and the help of each command load no torch, pandas, mlflow or fastapi."""
    heavy = ("torch", "pandas", "numpy", "mlflow", "fastapi", "sqlalchemy", "plotly")
    script = (
        "import sys, json\n"
        "sys.argv = ['statecast', *sys.argv[1:]]\n"
        "from pipelines import cli\n"
        "try:\n    cli.main()\n"
        "except SystemExit:\n    pass\n"
        f"print(json.dumps([name for name in {heavy!r} if name in sys.modules]), file=sys.stderr)\n"
    )
    for arguments in (["--help"], ["train", "--help"], ["--version"], []):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=ROOT,
            check=True,
        )  # fmt: skip

        assert json.loads(done.stderr.splitlines()[-1]) == []
        assert "statecast" in done.stdout


def test_every_command_of_the_tree_is_there(statecast):
    """The tree is the documented one, and every command has --json."""
    top = statecast("--help").out
    for name in ("demo", "doctor", "init", "data", "train", "backtest", "diagnose", "forecast",
                 "observe", "serve", "log", "models", "runs"):  # fmt: skip
        assert f" {name} " in top
    for name in ("data check", "models list", "models show", "models promote", "models rollback",
                 "train", "backtest", "diagnose", "forecast", "observe", "serve", "runs", "doctor",
                 "init", "demo"):  # fmt: skip
        assert "--json" in statecast(*name.split(), "--help").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train", "--max-step", "3"], "--max-steps"),
        (["train", "--h", "0"], "--h"),
        (["train"], "name a file"),
        (["train", "x.csv", "--cell", "lsmt"], "lsmt"),
        (["forecast", "x.csv", "-o", "x.xlsx"], ".parquet"),
        (["forecast", "x.csv", "--level", "120"], "not between 0 and 100"),
        (["forecast", "--server", "http://127.0.0.1:9"], "--id"),
        (["runs", "--config", "nope.toml"], "nope.toml"),
    ],
)
def test_wrong_command_line_is_exit_2_with_a_way_out(statecast, project, arguments, said):
    """Usage and settings are told like any error: code, sentence, help; JSON too."""
    plain = statecast(*arguments)
    as_json = statecast(*arguments, "--json")

    assert plain.code == as_json.code == 2
    assert plain.out == ""
    assert plain.err.startswith("error[")
    assert said in plain.err
    assert as_json.document["error"]["code"] in plain.err


def test_bad_data_are_exit_2_with_place_help_and_page(statecast, project, sales):
    """A gap is named with file, series and stamp, the way out, and where to read on."""
    sales.drop(index=sales.index[7]).to_csv("gap.csv", index=False)

    answer = statecast("train", "gap.csv")

    assert answer.code == 2
    assert answer.err.startswith("error[data.gap]: ")
    assert "gap.csv" in answer.err
    assert "  help: " in answer.err
    assert "docs: docs/errors.md#datagap" in answer.err
    assert not (project / "data").exists()


def test_data_check_reports_and_tells_every_problem(statecast, project, sales):
    """The report is on stdout and the problems on stderr; clean data are exit 0."""
    sales.to_csv("sales.csv", index=False)
    sales.drop(index=sales.index[7]).to_csv("gap.csv", index=False)

    clean = statecast("data", "check", "sales.csv", "--json")
    faulty = statecast("data", "check", "gap.csv")

    assert clean.code == 0
    assert clean.document["usable"] is True
    assert (clean.document["series"], clean.document["freq"]) == (6, "MS")
    assert faulty.code == 2
    assert "series" in faulty.out
    assert "error[data.gap]" in faulty.err


def test_kind_of_an_option_is_what_the_data_are_checked_for(statecast, project, sales):
    """The kind is shown with what it means, and a value that it forbids is a problem."""
    sales.assign(y=lambda t: t["y"].where(t.index != t.index[7], 0.0)).to_csv("s.csv", index=False)

    count = statecast("data", "check", "s.csv", "--kind", "count")
    price = statecast("data", "check", "s.csv", "--kind", "price")
    wrong = statecast("data", "check", "s.csv", "--kind", "weight")

    assert count.code == 0
    assert "forecast by its mean" in count.out
    assert price.code == 2
    assert "error[data.negative]" in price.err
    assert wrong.code == 2
    assert "error[config.invalid]" in wrong.err
    assert "'volatility'" in wrong.err


def test_init_writes_a_file_once(statecast, project, sales):
    """The file is filled in from the data, and not replaced unasked."""
    sales.to_csv("sales.csv", index=False)

    first = statecast("init", "--from", "sales.csv")
    second = statecast("init", "--from", "sales.csv")
    shown = statecast("init", "--from", "sales.csv", "--dry-run", "--json")

    assert first.code == 0
    assert 'freq = "MS"' in (project / "statecast.toml").read_text()
    assert "next: statecast data check" in first.err
    assert second.code == 2
    assert "--force" in second.err
    assert shown.document["settings"]["data"]["id_col"] == "unique_id"


def test_nothing_trained_yet_is_told_with_the_next_step(statecast, project):
    """Lists are empty and exit 0; a model that is asked for is not there: exit 1."""
    assert statecast("runs", "--json").document["runs"] == []
    assert statecast("models", "list", "--json").document["models"] == []

    missing = statecast("models", "show", "--json")

    assert missing.code == 1
    assert missing.document["error"]["code"] == "model.unknown"
    assert "statecast train" in missing.document["error"]["help"]


def test_training_again_is_refused_by_the_gate_with_exit_1(statecast, trained, monkeypatch):
    """The same model is no better than itself: registered, not promoted, and said so."""
    monkeypatch.chdir(trained)

    answer = statecast("train", "--no-refit", "--baselines", "", "--json")

    assert answer.code == 1
    assert answer.document["promoted"] is False
    assert "not better than the champion" in answer.document["verdict"]["reason"]
    assert "stays challenger" in answer.err


def test_progress_without_a_terminal_is_a_line_each_tenth(statecast, trained, monkeypatch):
    """Plain lines on stderr, elapsed times, the scores alone on stdout, no escape codes."""
    monkeypatch.chdir(trained)

    answer = statecast("train", "--no-refit", "--no-promote", "--baselines", "", "--name", "lines")

    lines = [line for line in answer.err.splitlines() if " %  step " in line]
    assert answer.code == 0
    assert len(lines) == 11
    assert answer.out.splitlines()[0].split() == [
        "model", "mase", "smape", "coverage_80", "coverage_95",
    ]  # fmt: skip
    assert "Trained in " in answer.err
    assert "next: " in answer.err
    assert "\x1b" not in answer.out + answer.err


def test_models_are_listed_shown_promoted_and_rolled_back(statecast, trained, monkeypatch):
    """The registry through the command line, in JSON."""
    monkeypatch.chdir(trained)

    listed = statecast("models", "list", "--json").document["models"]
    promoted = statecast("models", "promote", "2", "--json").document
    back = statecast("models", "rollback", "--json").document
    shown = statecast("models", "show", "--json").document
    unknown = statecast("models", "promote", "99", "--json")

    assert {"retail"} <= {model["name"] for model in listed}
    assert (promoted["champion"], promoted["previous"]) == (2, 1)
    assert (back["champion"], back["previous"]) == (1, 2)
    assert shown["config"]["model"]["horizon"] == 6
    assert unknown.code == 1


def test_forecasts_go_to_stdout_or_a_file(statecast, trained, monkeypatch, tmp_path):
    """CSV on stdout; Parquet, CSV and JSON files hold the same numbers."""
    monkeypatch.chdir(trained)
    ids = pd.read_csv("sales.csv")["unique_id"].unique()

    shown = statecast("forecast", "--h", "2", "--level", "80", "--id", ids[0])
    document = statecast("forecast", "--h", "2", "--id", ids[0], "--json").document
    made = {}
    for suffix in (".csv", ".parquet", ".json"):
        path = tmp_path / f"f{suffix}"
        assert statecast("forecast", "--h", "2", "-o", path).code == 0
        read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".json": pd.read_json}[suffix]
        made[suffix] = read(path)

    header = "unique_id,ds,statecast,statecast-lo-80,statecast-hi-80"
    assert shown.out.splitlines()[0] == header
    assert [row["ds"] for row in document["forecasts"]] == ["2019-01-01", "2019-02-01"]
    for table in made.values():
        assert len(table) == 12
        assert table["statecast"].tolist() == pytest.approx(made[".csv"]["statecast"].tolist())


def test_series_that_is_not_there_is_exit_1_with_the_nearest_name(statecast, trained, monkeypatch):
    """A misspelt id is answered with the name that was meant."""
    monkeypatch.chdir(trained)
    name = pd.read_csv("sales.csv")["unique_id"].iloc[0]

    answer = statecast("forecast", "--id", name[:-1])

    assert answer.code == 1
    assert "error[series.unknown]" in answer.err
    assert f"did you mean '{name}'?" in answer.err


def test_backtest_of_a_refitted_model_warns_that_it_saw_the_targets(
    statecast, trained, monkeypatch
):
    """The scores of weights that learned from the targets are not passed off as honest."""
    monkeypatch.chdir(trained)

    answer = statecast("backtest", "--windows", "1", "--baselines", "", "--json")

    assert answer.code == 0
    assert answer.document["trained_on_targets"] is True
    assert "flatter" in answer.err
    assert answer.document["scores"]["mase"] < 1


def test_doctor_finds_the_faults(statecast, trained, monkeypatch):
    """A working folder is exit 0; a broken settings file is exit 1 and says how to repair it."""
    monkeypatch.chdir(trained)
    well = statecast("doctor", "--json")
    (trained / "broken.toml").write_text("[train]\nsede = 1\n")
    ill = statecast("doctor", "--config", "broken.toml", "--json")

    assert well.code == 0
    assert {check["status"] for check in well.document["checks"]} <= {"ok", "warn"}
    assert any("retail v" in check["found"] for check in well.document["checks"])
    assert ill.code == 1
    faults = [check for check in ill.document["checks"] if check["status"] == "fail"]
    assert faults[0]["what"] == "settings"
    assert "'seed'" in faults[0]["fix"]


def test_server_that_does_not_answer_is_exit_3(statecast, project, sales):
    """Nothing listens there: what to start is said."""
    sales.to_csv("sales.csv", index=False)

    answer = statecast("observe", "sales.csv", "--server", "http://127.0.0.1:9", "--json")

    assert answer.code == 3
    assert answer.document["error"]["code"] == "service.unreachable"
    assert "statecast serve" in answer.document["error"]["help"]


@pytest.fixture
def logged(statecast, project, sales) -> Path:
    """A model in `bundle`, and a folder whose log has the sales; returns the log."""
    data = DataConfig(freq="MS", kind="positive")
    train_tiny(sales, data, project / "bundle")
    import_history(f"sqlite:///{project / 'data' / 'observations.db'}", sales, data)
    return project / "data" / "observations.db"


def test_the_log_is_told_exported_pruned_and_made_smaller(statecast, logged, sales):
    """Counted before anything goes; the file on the disk shrinks; a new log reads the export."""
    name = sales["unique_id"].iloc[0]
    before = statecast("log", "info", "--json").document
    exported = statecast("log", "export", "all.parquet", "--json").document
    twice = statecast("log", "export", "all.parquet", "--json")
    some = statecast("log", "export", "some.parquet", "--series", name, "--since", "2018-01-01",
                     "--until", "2018-06-01", "--full", "--json").document  # fmt: skip
    rule = ["log", "prune", "--keep-steps", "12", "--model", "bundle", "--json"]
    counted = statecast(*rule, "--dry-run").document
    pruned = statecast(*rule).document
    again = statecast("log", "prune", "--before", "2018-01-01", "--dry-run", "--json").document
    after = statecast("log", "info", "--json").document

    assert (before["series"], before["rows"], before["schema"]) == (6, 720, "0003")
    assert (before["first_ds"], before["last_ds"]) == ("2009-01-01", "2018-12-01")
    assert (exported["rows"], some["rows"]) == (720, 6)
    assert (twice.code, twice.document["error"]["code"]) == (2, "cli.usage")
    assert list(pd.read_parquet("some.parquet").columns) == [
        "unique_id", "ds", "y", "revision", "filled", "recorded_at"
    ]  # fmt: skip
    assert (counted["dry_run"], pruned["dry_run"]) == (True, False)
    assert (counted["rows"], pruned["rows"], again["rows"]) == (648, 648, 0)
    assert (after["rows"], after["first_ds"], after["pruned_steps"]) == (72, "2018-01-01", 648)
    assert statecast("log", "info").out.splitlines()[-1].split() == [
        "pruned", "648", "steps", "of", "6", "series"
    ]  # fmt: skip
    counts = import_history("sqlite:///fresh.db", "all.parquet", DataConfig(freq="MS"))
    assert (counts["new"], counts["series"]) == (720, 6)


def test_space_is_given_back_to_the_disk(statecast, logged):
    """Unless it is to stay for the rows that come."""
    rule = ["log", "prune", "--model", "bundle", "--json", "--keep-steps"]
    size = logged.stat().st_size

    statecast(*rule, "60", "--no-vacuum")
    kept = logged.stat().st_size
    statecast(*rule, "10")

    assert kept >= size
    assert logged.stat().st_size < size


def test_series_are_deleted_all_or_none(statecast, logged, sales):
    """A name that is none takes none of the others with it."""
    names = sorted(sales["unique_id"].unique())

    wrong = statecast("log", "delete", names[0], names[1] + "x", "--json")
    gone = statecast("log", "delete", names[0], names[1], "--json")

    assert (wrong.code, wrong.document["error"]["code"]) == (1, "series.unknown")
    assert f"did you mean '{names[1]}'?" in wrong.document["error"]["help"]
    assert gone.document["rows"] == 240
    assert statecast("log", "info", "--json").document["series"] == 4


def test_with_a_server_running_the_log_is_read_and_the_server_writes(statecast, logged, sales):
    """Without --server a file is locked, and it is said what to do."""
    name = sales["unique_id"].iloc[0]
    data = logged.parent
    told = {"STATECAST_MODEL": str(data.parent / "bundle"), "STATECAST_DATA_DIR": str(data)}
    with server(told) as running:
        url = running.url
        rule = ["log", "prune", "--model", "bundle", "--keep-steps", "12", "--json"]
        locked = statecast(*rule)
        counted = statecast(*rule, "--dry-run").document
        pruned = statecast(*rule, "--server", url).document
        exported = statecast("log", "export", "left.parquet", "--json").document
        gone = statecast("log", "delete", name, "--server", url, "--json").document

    assert (locked.code, locked.document["error"]["code"]) == (2, "log.locked")
    assert "--server" in locked.document["error"]["help"]
    assert (counted["rows"], pruned["rows"]) == (648, 648)
    assert (exported["rows"], gone["rows"]) == (72, 12)


def test_of_several_models_the_log_is_named(statecast, project, sales, monkeypatch):
    """Without a name, or with a wrong one, those there are; with it, that log alone."""
    data = DataConfig(freq="MS", kind="positive")
    train_tiny(sales, data, project / "bundle")
    for name in ("north", "south"):
        import_history(f"sqlite:///{project / 'data' / name / 'observations.db'}", sales, data)
    alone = statecast("log", "info", "--name", "north", "--json")
    models = json.dumps(dict.fromkeys(("north", "south"), str(project / "bundle")))
    name, rule = sales["unique_id"].iloc[0], ["log", "prune", "--json", "--keep-steps"]
    with monkeypatch.context() as several:
        several.setenv("STATECAST_MODELS", models)
        bare = statecast("log", "info", "--json")
        wrong = statecast("log", "info", "--name", "sooth", "--json")
        pruned = statecast(*rule, "12", "--name", "north").document
        exported = statecast("log", "export", "a.parquet", "--name", "south", "--json").document
        gone = statecast("log", "delete", name, "--name", "south", "--json").document
        left = [statecast("log", "info", "--name", model, "--json").document["rows"]
                for model in ("north", "south")]  # fmt: skip
    told = {"STATECAST_MODELS": models, "STATECAST_DATA_DIR": str(project / "data")}
    with server(told) as running:
        asked = ["--server", running.url, "--name", "north", "--json"]
        nobody = statecast(*rule, "10", "--server", running.url)
        again = statecast(*rule, "10", *asked).document
        lost = statecast("log", "delete", name, *asked).document

    for answer in (alone, bare, wrong):
        assert (answer.code, answer.document["error"]["code"]) == (2, "cli.usage")
    assert "north, south" in bare.document["error"]["message"]
    assert wrong.document["error"]["help"] == "say --name south"
    assert (pruned["rows"], exported["rows"], gone["rows"]) == (648, 720, 120)
    assert left == [72, 600]
    assert nobody.document["error"]["code"] == "request.model"
    assert (again["rows"], lost["rows"]) == (12, 10)


def test_of_several_models_one_is_sent_observations(statecast, project, sales, monkeypatch):
    """With `--offline` to its log, by its model's roles and frequency; else through the server."""
    plain, wide = DataConfig(freq="MS", kind="positive"), sales.assign(extra=1.0)
    train_tiny(sales, plain, project / "plain")
    train_tiny(wide, replace(plain, past_only=("extra",)), project / "wide")
    wide.to_csv("wide.csv", index=False)
    models = json.dumps({"north": str(project / "plain"), "south": str(project / "wide")})
    with monkeypatch.context() as several:
        several.setenv("STATECAST_MODELS", models)
        bare = statecast("observe", "wide.csv", "--offline", "--json")
        named = [(name, ["--name", name, "--json"]) for name in ("north", "south")]
        stored = [statecast("observe", "wide.csv", "--offline", *asked) for _, asked in named]
        read = [statecast("log", "export", f"{name}.parquet", *asked) for name, asked in named]
    told = {"STATECAST_MODELS": models, "STATECAST_DATA_DIR": str(project / "data")}
    with server(told) as running:
        again = statecast(
            "observe", "wide.csv", "--server", running.url, "--name", "south", "--json"
        ).document  # fmt: skip

    assert (bare.code, bare.document["error"]["code"]) == (2, "cli.usage")
    assert "north, south" in bare.document["error"]["message"]
    assert [one.document["new"] for one in stored] == [len(sales)] * 2
    assert [one.document["rows"] for one in read] == [len(sales)] * 2
    columns = ["unique_id", "ds", "y"]
    assert list(pd.read_parquet("north.parquet")) == columns
    assert list(pd.read_parquet("south.parquet")) == [*columns, "extra"]
    assert (again["duplicate"], again["new"]) == (len(sales), 0)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["info"], "log.invalid"),
        (["export", "x.csv"], "cli.usage"),
        (["export", "nowhere/x.parquet"], "log.invalid"),
        (["prune"], "cli.usage"),
        (["prune", "--keep-steps", "3", "--before", "2018-01-01"], "cli.usage"),
    ],
)
def test_a_log_that_is_not_there_and_options_that_do_not_fit(statecast, project, arguments, code):
    """Exit code 2, and no log is made by looking."""
    answer = statecast("log", *arguments, "--json")

    assert (answer.code, answer.document["error"]["code"]) == (2, code)
    assert not (project / "data").exists()


def test_ctrl_c_says_what_was_saved_and_the_run_goes_on(sales, tmp_path):
    """
    A real process, interrupted in the middle: exit 130, and what is kept is named.

    The resuming command brings the run to its end without training the first steps again.
    """
    sales.to_csv(tmp_path / "sales.csv", index=False)
    arguments = ["train", "sales.csv", "--h", "6", "--hidden-size", "8", "--max-steps", "800",
                 "--baselines", "", "--no-refit", "--no-promote"]  # fmt: skip
    running = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments], cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    said = []
    for line in running.stderr:
        said.append(line)
        if " 20 %  step " in line:
            running.send_signal(signal.SIGINT)
            running.send_signal(signal.SIGINT)
    code = running.wait(timeout=60)
    running.stdout.close()
    running.stderr.close()
    resumed = command(tmp_path, *arguments, "--resume")

    text = "".join(said)
    assert code == 130
    assert "saved: learn, step " in text
    assert "--resume" in text
    assert resumed.returncode == 0, resumed.stderr
    assert " 0 %  step " not in resumed.stderr
    assert not list((tmp_path / "data" / "checkpoints").iterdir())


def test_demo_trains_once_serves_and_stops_cleanly(tmp_path):
    """The whole, twice: the printed requests work as they stand; Ctrl-C leaves no process."""
    arguments = ["demo", "--port", "0", "--mlflow-port", "0", "--max-steps", "150", "--baselines",
                 "", "--json"]  # fmt: skip

    first, seen = demo(tmp_path, arguments)
    second, again = demo(tmp_path, arguments)

    assert "learn" in first
    assert seen["before"]["forecasts"][0]["position"]["last_ds"] == "2018-12-01"
    assert seen["observed"]["new"] == 1
    assert seen["after"]["forecasts"][0]["state"] == "live"
    assert seen["after"]["forecasts"][0]["position"]["last_ds"] == "2019-01-01"
    assert "nothing to train" in second
    assert again["before"]["forecasts"][0]["position"]["last_ds"] == "2019-01-01"


def demo(folder: Path, arguments: list[str]) -> tuple[str, dict]:
    """Start the demo, send what it prints, interrupt it; returns its stderr and the answers."""
    with (folder / "err").open("w") as err:
        running = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *arguments], cwd=folder, env=environment(),
            stdout=subprocess.PIPE, stderr=err, text=True, start_new_session=True,
        )  # fmt: skip
    try:
        lines = []
        for line in running.stdout:
            lines.append(line)
            if line == "}\n":
                break
        told = json.loads("".join(lines))
        ask, report = (post_of(line) for line in told["try"])
        seen = {"before": ask(), "observed": report(), "after": ask()}
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 0
        with pytest.raises(ProcessLookupError):
            os.killpg(running.pid, 0)
    finally:
        running.kill()
        running.wait()
        running.stdout.close()
    return (folder / "err").read_text(), seen


def post_of(curl: str) -> Callable[[], dict]:
    """The request that a printed curl line makes."""
    _, _, url, _, header, _, body = shlex.split(curl)
    name, _, value = header.partition(": ")

    def send() -> dict:
        request = urllib.request.Request(url, data=body.encode(), headers={name: value})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    return send


def test_pages_of_mlflow_end_with_their_context(trained):
    """The tracking server answers, and its whole process group is gone afterwards."""
    from pipelines.pages import MlflowPages

    pages = MlflowPages(f"sqlite:///{trained / 'data' / 'mlflow.db'}", trained / "data", port=5900)
    with pages:
        answers = pages.wait()
        group = pages.group

    assert answers
    until = time.monotonic() + 10
    while time.monotonic() < until and alive(group):
        time.sleep(0.05)
    assert not alive(group)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def commands(group, path=()):
    """Every command of the tree with its name."""
    for name, child in group.commands.items():
        if hasattr(child, "commands"):
            yield from commands(child, (*path, name))
        else:
            yield " ".join((*path, name)), child


def test_every_command_and_option_is_documented():
    """docs/cli.md has a section a command, and names each of its options there."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    shared, *rest = re.split(r"^### ", page, flags=re.MULTILINE)
    sections = {part.partition("\n")[0]: part for part in rest}
    tree = dict(commands(typer.main.get_command(cli.app)))

    assert set(sections) == set(tree)
    for name, one in tree.items():
        for option in one.params:
            if option.param_type_name == "option" and option.name != "help":
                where = sections[name] + shared.partition("## Settings")[0]
                assert f"`{option.opts[-1]}" in where, (name, option.opts)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_every_code_of_the_command_line_is_documented(error):
    """docs/errors.md has a section with an example for each code that pipelines raise."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")

    _, found, section = page.partition(f"\n## {error.code}\n")

    assert found
    assert "```text" in section.partition("\n## ")[0]
