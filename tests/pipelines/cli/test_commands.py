"""The command line: what it prints where, its exit codes, and that it starts at once."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.pipelines.cli.conftest import ROOT


def test_help_loads_nothing_heavy():
    """`statecast --help` and the help of each command load no torch, pandas, mlflow or fastapi."""
    heavy = ("torch", "pandas", "numpy", "mlflow", "fastapi", "sqlalchemy", "plotly")
    script = (
        "import sys, json\n"
        "sys.argv = ['statecast', *sys.argv[1:]]\n"
        "from pipelines.cli import main as cli\n"
        "try:\n    cli.main()\n"
        "except SystemExit:\n    pass\n"
        f"print(json.dumps([name for name in {heavy!r} if name in sys.modules]), file=sys.stderr)\n"
    )
    for arguments in (["--help"], ["train", "--help"], ["--version"], []):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )

        assert json.loads(done.stderr.splitlines()[-1]) == []
        assert "statecast" in done.stdout


def test_every_command_of_the_tree_is_there(statecast):
    """The tree is the documented one, and every command has --json."""
    top = statecast("--help").out
    for name in (
        "demo",
        "doctor",
        "init",
        "data",
        "train",
        "backtest",
        "diagnose",
        "forecast",
        "observe",
        "serve",
        "log",
        "models",
        "runs",
    ):
        assert f" {name} " in top
    for name in (
        "data check",
        "models list",
        "models show",
        "models promote",
        "models rollback",
        "train",
        "backtest",
        "diagnose",
        "forecast",
        "observe",
        "serve",
        "runs",
        "doctor",
        "init",
        "demo",
    ):
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
        "model",
        "mase",
        "smape",
        "coverage_80",
        "coverage_95",
    ]
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


def test_backtest_compares_integer_steps_as_numbers(statecast, project, sales):
    """Weights trained up to step 1000 have seen the targets after step 994, though "1" < "9"."""
    steps = sales.assign(ds=sales.groupby("unique_id").cumcount() + 881)
    steps.to_csv("steps.csv", index=False)
    trained = statecast(
        "train",
        "steps.csv",
        "--h",
        "3",
        "--freq",
        "1",
        "--members",
        "1",
        "--max-steps",
        "1",
        "--baselines",
        "",
        "--no-promote",
    )

    answer = statecast("backtest", "steps.csv", "--model", "1", "--baselines", "", "--json")

    assert trained.code == 0
    assert answer.document["first_cutoff"] == "994"
    assert answer.document["trained_on_targets"] is True
    assert "trained up to 1000, after the first cutoff 994" in answer.err


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


def test_broken_champion_is_found_by_the_doctor_and_followed_by_the_next_training(
    statecast, project, sales
):
    """The doctor reads the champion; a training passes it by, and the operator promotes."""
    sales.to_csv("sales.csv", index=False)
    again = (
        "train",
        "sales.csv",
        "--h",
        "6",
        "--members",
        "1",
        "--max-steps",
        "2",
        "--baselines",
        "",
        "--no-refit",
    )
    statecast(*again)
    statecast("models", "promote", "1")
    (weights,) = Path("data/artifacts").glob("models/*/artifacts/**/weights.safetensors")
    weights.write_bytes(b"broken off")

    ill = statecast("doctor", "--json")
    trained = statecast(*again)
    promoted = statecast("models", "promote", "2")
    well = statecast("doctor", "--json")

    (fault,) = [check for check in ill.document["checks"] if check["status"] == "fail"]
    assert ill.code == 1
    assert fault["what"] == "MLflow"
    assert "champion: statecast v1 cannot be read: weights.safetensors was" in fault["found"]
    assert "statecast models promote" in fault["fix"]
    assert trained.code == 1
    assert "warning: this model will not be promoted by itself" in trained.err
    assert promoted.code == well.code == 0


def test_server_that_does_not_answer_is_exit_3(statecast, project, sales):
    """Nothing listens there: what to start is said."""
    sales.to_csv("sales.csv", index=False)

    answer = statecast("observe", "sales.csv", "--server", "http://127.0.0.1:9", "--json")

    assert answer.code == 3
    assert answer.document["error"]["code"] == "service.unreachable"
    assert "statecast serve" in answer.document["error"]["help"]


def test_a_folder_that_cannot_be_written_is_exit_2_with_a_way_out(statecast, project, sales):
    """A file stands where the data folder should be: no bug of ours."""
    sales.to_csv("sales.csv", index=False)
    (project / "taken").write_text("a file")
    (project / "statecast.toml").write_text('[project]\ndata_dir = "taken/data"\n')

    answer = statecast("train", "sales.csv", "--max-steps", "5", "--json")

    assert answer.code == 2
    assert answer.document["error"]["code"] in ("cli.file", "registry.unavailable")
    assert "bug" not in answer.err


@pytest.mark.parametrize(
    ("option", "told"), [(("--baselines", "AutoETs"), "AutoETS"), (("--name", "a/b"), "without /")]
)
def test_a_slip_is_told_before_anything_is_trained(statecast, project, sales, option, told):
    """With the way out, as wrong usage."""
    sales.to_csv("sales.csv", index=False)

    answer = statecast("train", "sales.csv", *option, "--json")

    assert (answer.code, answer.document["error"]["code"]) == (2, "cli.usage")
    assert told in answer.document["error"]["help"]
    assert not (project / "data").exists()


def test_no_password_of_a_database_is_told(statecast, project):
    """Neither that of the address nor that of its query."""
    address = "postgresql+psycopg://bob:hunter2@127.0.0.1:1/sales?password=hunter3"

    answers = [
        statecast(*words, address, "--query", "select 1", "--verbose")
        for words in (("data", "check"), ("train",))
    ]

    for answer in answers:
        assert answer.code == 2
        assert "127.0.0.1" in answer.err
        assert "hunter" not in answer.out + answer.err
