"""Output, exit codes and start-up of the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.paths import ROOT

GROUPS = {
    "data": ("check",),
    "log": ("info", "export", "prune", "delete"),
    "models": ("list", "show", "promote", "rollback"),
}
SINGLE = {
    "demo",
    "doctor",
    "init",
    "train",
    "backtest",
    "diagnose",
    "forecast",
    "observe",
    "serve",
    "runs",
}


def test_help_imports_no_heavy_package():
    """The help of the application and of a command must appear at once."""
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
        process = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )

        assert json.loads(process.stderr.splitlines()[-1]) == []
        assert "statecast" in process.stdout


def test_every_command_is_listed_and_has_json(statecast):
    """The top-level help lists every command and group."""
    top = statecast("--help").out
    for name in (*SINGLE, *GROUPS):
        assert f" {name} " in top
    paths = [[name] for name in SINGLE]
    paths += [[group, name] for group, names in GROUPS.items() for name in names]
    for path in paths:
        assert "--json" in statecast(*path, "--help").out


@pytest.mark.parametrize(
    ("arguments", "message"),
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
def test_a_wrong_command_line_is_exit_2_with_help(statecast, project, arguments, message):
    """Usage errors look like all others: code, message and help, also as JSON."""
    plain = statecast(*arguments)
    as_json = statecast(*arguments, "--json")

    assert plain.code == as_json.code == 2
    assert plain.out == ""
    assert plain.err.startswith("error[")
    assert message in plain.err
    assert as_json.document["error"]["code"] in plain.err


def test_bad_data_are_exit_2_with_location_help_and_link(statecast, project, sales):
    """A gap is reported with its file, what to do and a link to the documentation."""
    sales.drop(index=sales.index[7]).to_csv("gap.csv", index=False)

    answer = statecast("train", "gap.csv")

    assert answer.code == 2
    assert answer.err.startswith("error[data.gap]: ")
    assert "gap.csv" in answer.err
    assert "  help: " in answer.err
    assert "docs: docs/errors.md#datagap" in answer.err
    assert not (project / "data").exists()


def test_data_check_prints_a_summary_and_every_problem(statecast, project, sales):
    """The summary goes to stdout and problems to stderr; without problems the exit code is 0."""
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


def test_data_are_checked_for_the_kind_given_as_an_option(statecast, project, sales):
    """The summary explains the kind, and values that it forbids are problems."""
    sales.assign(y=lambda t: t["y"].where(t.index != t.index[7], 0.0)).to_csv("s.csv", index=False)

    count = statecast("data", "check", "s.csv", "--kind", "count")
    price = statecast("data", "check", "s.csv", "--kind", "price")
    wrong = statecast("data", "check", "s.csv", "--kind", "weight")

    assert count.code == 0
    assert "the mean is forecast" in count.out
    assert price.code == 2
    assert "error[data.negative]" in price.err
    assert wrong.code == 2
    assert "error[config.invalid]" in wrong.err
    assert "'volatility'" in wrong.err


def test_init_does_not_replace_a_file_unless_forced(statecast, project, sales):
    """The file is filled in from the data; a second call is refused."""
    sales.to_csv("sales.csv", index=False)

    first = statecast("init", "--from", "sales.csv")
    second = statecast("init", "--from", "sales.csv")
    dry_run = statecast("init", "--from", "sales.csv", "--dry-run", "--json")

    assert first.code == 0
    assert 'freq = "MS"' in (project / "statecast.toml").read_text()
    assert "next: statecast data check" in first.err
    assert second.code == 2
    assert "--force" in second.err
    assert dry_run.document["settings"]["data"]["id_col"] == "unique_id"


def test_without_a_model_lists_are_empty_and_show_is_exit_1(statecast, project):
    """The help of the error says to train a model."""
    assert statecast("runs", "--json").document["runs"] == []
    assert statecast("models", "list", "--json").document["models"] == []

    missing = statecast("models", "show", "--json")

    assert missing.code == 1
    assert missing.document["error"]["code"] == "model.unknown"
    assert "statecast train" in missing.document["error"]["help"]


def test_a_model_no_better_than_the_champion_is_exit_1(statecast, trained, monkeypatch):
    """Training again yields the same model, which is registered but not promoted."""
    monkeypatch.chdir(trained)

    answer = statecast("train", "--no-refit", "--baselines", "", "--json")

    assert answer.code == 1
    assert answer.document["promoted"] is False
    assert "not better than the champion" in answer.document["verdict"]["reason"]
    assert "stays challenger" in answer.err


def test_progress_without_a_terminal_is_one_line_per_tenth(statecast, trained, monkeypatch):
    """Only the scores go to stdout, and no escape codes are written."""
    monkeypatch.chdir(trained)

    answer = statecast("train", "--no-refit", "--no-promote", "--baselines", "", "--name", "lines")

    lines = [line for line in answer.err.splitlines() if " %  step " in line]
    assert answer.code == 0
    assert len(lines) == 11
    columns = answer.out.splitlines()[0].split()
    assert columns == ["model", "mase", "smape", "coverage_80", "coverage_95"]
    assert "trained in " in answer.err
    assert "next: " in answer.err
    assert "\x1b" not in answer.out + answer.err


def test_models_are_listed_shown_promoted_and_rolled_back(statecast, trained, monkeypatch):
    """Promotion and rollback swap the champion and the previous version."""
    monkeypatch.chdir(trained)

    listed = statecast("models", "list", "--json").document["models"]
    promoted = statecast("models", "promote", "2", "--json").document
    rolled_back = statecast("models", "rollback", "--json").document
    shown = statecast("models", "show", "--json").document
    unknown = statecast("models", "promote", "99", "--json")

    assert {"retail"} <= {model["name"] for model in listed}
    assert (promoted["champion"], promoted["previous"]) == (2, 1)
    assert (rolled_back["champion"], rolled_back["previous"]) == (1, 2)
    assert shown["config"]["model"]["horizon"] == 6
    assert unknown.code == 1


def test_forecasts_go_to_stdout_or_a_file(statecast, trained, monkeypatch, tmp_path):
    """Stdout gets CSV; Parquet, CSV and JSON files hold the same numbers."""
    monkeypatch.chdir(trained)
    ids = pd.read_csv("sales.csv")["unique_id"].unique()

    printed = statecast("forecast", "--h", "2", "--level", "80", "--id", ids[0])
    document = statecast("forecast", "--h", "2", "--id", ids[0], "--json").document
    tables = {}
    for suffix in (".csv", ".parquet", ".json"):
        path = tmp_path / f"f{suffix}"
        assert statecast("forecast", "--h", "2", "-o", path).code == 0
        read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".json": pd.read_json}[suffix]
        tables[suffix] = read(path)

    header = "unique_id,ds,statecast,statecast-lo-80,statecast-hi-80"
    assert printed.out.splitlines()[0] == header
    assert [row["ds"] for row in document["forecasts"]] == ["2019-01-01", "2019-02-01"]
    for table in tables.values():
        assert len(table) == 12
        assert table["statecast"].tolist() == pytest.approx(tables[".csv"]["statecast"].tolist())


def test_an_unknown_series_is_exit_1_with_the_nearest_name(statecast, trained, monkeypatch):
    """The help suggests the series that a misspelt name resembles."""
    monkeypatch.chdir(trained)
    name = pd.read_csv("sales.csv")["unique_id"].iloc[0]

    answer = statecast("forecast", "--id", name[:-1])

    assert answer.code == 1
    assert "error[series.unknown]" in answer.err
    assert f"did you mean '{name}'?" in answer.err


def test_backtest_warns_if_the_model_was_trained_on_the_targets(statecast, trained, monkeypatch):
    """The model was retrained on all data, so its scores at earlier cutoffs are too good."""
    monkeypatch.chdir(trained)

    answer = statecast("backtest", "--windows", "1", "--baselines", "", "--json")

    assert answer.code == 0
    assert answer.document["trained_on_targets"] is True
    assert "these scores are too good" in answer.err
    assert answer.document["scores"]["mase"] < 1


def test_backtest_compares_integer_steps_as_numbers(statecast, project, sales):
    """Step 1000 comes after step 994, although "1" sorts before "9" as text."""
    steps = sales.assign(ds=sales.groupby("unique_id").cumcount() + 881)
    steps.to_csv("steps.csv", index=False)
    options = "--h 3 --freq 1 --members 1 --max-steps 1 --baselines= --no-promote"
    trained = statecast("train", "steps.csv", *options.split())

    answer = statecast("backtest", "steps.csv", "--model", "1", "--baselines", "", "--json")

    assert trained.code == 0
    assert answer.document["first_cutoff"] == "994"
    assert answer.document["trained_on_targets"] is True
    assert "trained up to 1000, after the first cutoff 994" in answer.err


def test_doctor_reports_a_broken_settings_file(statecast, trained, monkeypatch):
    """Without faults the exit code is 0; a misspelt key is a fault with a fix and exit code 1."""
    monkeypatch.chdir(trained)
    healthy = statecast("doctor", "--json")
    (trained / "broken.toml").write_text("[train]\nsede = 1\n")
    broken = statecast("doctor", "--config", "broken.toml", "--json")

    assert healthy.code == 0
    assert {check["status"] for check in healthy.document["checks"]} <= {"ok", "warn"}
    assert any("retail v" in check["found"] for check in healthy.document["checks"])
    assert broken.code == 1
    faults = [check for check in broken.document["checks"] if check["status"] == "fail"]
    assert faults[0]["what"] == "settings"
    assert "'seed'" in faults[0]["fix"]


def test_a_broken_champion_is_reported_by_doctor_and_replaced_by_hand(statecast, project, sales):
    """A new training does not promote itself over a champion that it cannot compare with."""
    sales.to_csv("sales.csv", index=False)
    options = "--h 6 --members 1 --max-steps 2 --baselines= --no-refit"
    train = ["train", "sales.csv", *options.split()]
    statecast(*train)
    statecast("models", "promote", "1")
    (weights,) = Path("data/artifacts").glob("models/*/artifacts/**/weights.safetensors")
    weights.write_bytes(b"damaged")

    broken = statecast("doctor", "--json")
    trained = statecast(*train)
    promoted = statecast("models", "promote", "2")
    healthy = statecast("doctor", "--json")

    (fault,) = [check for check in broken.document["checks"] if check["status"] == "fail"]
    assert broken.code == 1
    assert fault["what"] == "MLflow"
    assert "champion: statecast v1 cannot be loaded: weights.safetensors was" in fault["found"]
    assert "statecast models promote" in fault["fix"]
    assert trained.code == 1
    assert "warning: this model will not be promoted by itself" in trained.err
    assert promoted.code == healthy.code == 0


def test_a_server_that_does_not_answer_is_exit_3(statecast, project, sales):
    """The help names the command that starts a server."""
    sales.to_csv("sales.csv", index=False)

    answer = statecast("observe", "sales.csv", "--server", "http://127.0.0.1:9", "--json")

    assert answer.code == 3
    assert answer.document["error"]["code"] == "service.unreachable"
    assert "statecast serve" in answer.document["error"]["help"]


def test_a_folder_that_cannot_be_created_is_exit_2_and_not_a_bug(statecast, project, sales):
    """A file has the name of the data folder's parent."""
    sales.to_csv("sales.csv", index=False)
    (project / "taken").write_text("a file")
    (project / "statecast.toml").write_text('[project]\ndata_dir = "taken/data"\n')

    answer = statecast("train", "sales.csv", "--max-steps", "5", "--json")

    assert answer.code == 2
    assert answer.document["error"]["code"] in ("cli.file", "registry.unavailable")
    assert "bug" not in answer.err


@pytest.mark.parametrize(
    ("option", "hint"), [(("--baselines", "AutoETs"), "AutoETS"), (("--name", "a/b"), "without /")]
)
def test_a_wrong_name_is_refused_before_training(statecast, project, sales, option, hint):
    """A misspelt baseline and an invalid model name are usage errors."""
    sales.to_csv("sales.csv", index=False)

    answer = statecast("train", "sales.csv", *option, "--json")

    assert (answer.code, answer.document["error"]["code"]) == (2, "cli.usage")
    assert hint in answer.document["error"]["help"]
    assert not (project / "data").exists()


def test_passwords_of_a_database_are_not_printed(statecast, project):
    """Neither the password of the user nor one in the query of the URL appears in the output."""
    url = "postgresql+psycopg://bob:hunter2@127.0.0.1:1/sales?password=hunter3"

    answers = [
        statecast(*words, url, "--query", "select 1", "--verbose")
        for words in (("data", "check"), ("train",))
    ]

    for answer in answers:
        assert answer.code == 2
        assert "127.0.0.1" in answer.err
        assert "hunter" not in answer.out + answer.err
