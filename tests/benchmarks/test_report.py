"""The report from result lines, and the exchange of files with a peer."""

import json
import re
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import report
from benchmarks.accuracy.cases import Case
from benchmarks.peers import exchange, handover

# Lines of real runs, reduced to the fields that a report reads.
RESULTS = [
    ("peers", "aus_retail", "SeasonalNaive", "mase", 1.354277, 0.15),
    ("peers", "aus_retail", "SeasonalNaive", "crps", 0.023415, 0.15),
    ("peers", "aus_retail", "SeasonalNaive", "coverage_80", 0.769623, 0.15),
    ("peers", "aus_retail", "SeasonalNaive", "fit_cpu_seconds", 0.009847, 0.15),
    ("peers", "aus_retail", "SeasonalNaive", "predict_cpu_seconds", 0.06509, 0.15),
    ("peers", "aus_retail", "AutoETS", "mase", 1.145096, 38.977),
    ("peers", "aus_retail", "AutoETS", "crps", 0.0187, 38.977),
    ("peers", "aus_retail", "AutoETS", "coverage_80", 0.88787, 38.977),
    ("peers", "aus_retail", "neuralforecast-lstm", "mase", 2.672389, 120.491),
    ("peers", "aus_retail", "neuralforecast-lstm", "fit_cpu_seconds", 94.634796, 120.491),
]
OURS = [
    ("retail", "aus_retail", "statecast", "mase", 1.074, 10.0),
    ("retail", "aus_retail", "statecast", "crps", 0.0191, 10.0),
    ("retail", "aus_retail", "SeasonalNaive", "mase", 9.9, 1.0),
    ("retail", "aus_retail_val", "statecast", "mase", 0.001, 10.0),
    ("retail", "aus_retail/seed1", "statecast", "mase", 0.002, 10.0),
    ("state", "1 series", "statecast", "observe_us", 801.0, 10.0),
]
KEYS = ("benchmark", "case", "model", "metric", "value", "seconds")
STOPPED = {"budget_s": 120.0, "stopped": True, "settings": "input_size=54"}
FAILED = {
    "benchmark": "peers",
    "case": "aus_retail",
    "model": "darts-lstm",
    "metric": "failed",
    "value": None,
    "seconds": None,
    "budget_s": 120.0,
    "note": "given up after 720 s",
}


@pytest.fixture
def folders(tmp_path):
    """Return a folder of results, and a folder of documents whose page has the markers."""
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    docs.mkdir()
    (docs / "benchmarks.md").write_text(f"# Before\n\n{report.BEGIN}\nold\n{report.END}\n\nAfter\n")
    lines = [dict(zip(KEYS, values, strict=True)) for values in RESULTS]
    lines = [line | (STOPPED if "neural" in line["model"] else {}) for line in lines] + [FAILED]
    (results / "peers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return results, docs


@pytest.fixture
def make_report(folders, monkeypatch):
    """Return a function that writes the report and returns the page and the bytes of the plots."""
    results, docs = folders

    def make():
        monkeypatch.setattr("sys.argv", ["report", "--results", str(results), "--docs", str(docs)])
        report.main()
        plots = {path.name: path.read_bytes() for path in (docs / "figures").iterdir()}
        return (docs / "benchmarks.md").read_text(), plots

    return make


@pytest.fixture
def with_ours(folders):
    """Write results of Statecast and of a baseline to a file of their own."""
    lines = [json.dumps(dict(zip(KEYS, values, strict=True))) for values in OURS]
    (folders[0] / "statecast.jsonl").write_text("\n".join(lines) + "\n")


def cells(page, model):
    """Return the cells of the row of a model by column."""
    table = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("|")]
    head = [name.strip() for name in table[0]]
    row = next(row for row in table if row[0].strip().split()[0] == model)
    return dict(zip(head, (cell.strip() for cell in row), strict=True))


def test_cells_without_a_value_are_empty(make_report):
    """A missing metric is an empty cell; processor seconds need those of fit and predict."""
    page, _ = make_report()

    naive, lstm = cells(page, "SeasonalNaive"), cells(page, "neuralforecast-lstm")
    assert (naive["mase"], naive["coverage_80"]) == ("1.354", "**0.770**")
    assert naive["of the processor"] == "0.1"
    assert (lstm["mase"], lstm["crps"], lstm["of the processor"]) == ("2.672", "", "")
    assert set(list(cells(page, "darts-lstm").values())[1:]) == {""}


def test_rows_are_sorted_by_the_main_metric_and_the_best_values_are_bold(make_report):
    """The best row is first; the smallest errors and the closest coverages are bold."""
    page, _ = make_report()

    order = re.findall(r"^\| (\w[\w-]*)", page, flags=re.MULTILINE)
    assert order == ["model", "AutoETS", "SeasonalNaive", "neuralforecast-lstm", "darts-lstm"]
    assert cells(page, "AutoETS")["mase"] == "**1.145**"
    assert cells(page, "AutoETS")["crps"] == "**0.01870**"


def test_report_names_stopped_trainings_and_failures(make_report):
    """A remark says that training stopped at its budget or that there is no forecast."""
    page, _ = make_report()

    assert (
        "- neuralforecast-lstm: input_size=54; "
        "training stopped at its budget, 120 s of the processor"
    ) in page
    assert "- darts-lstm: no forecast: given up after 720 s" in page
    assert "No result of Statecast yet." in page


@pytest.mark.usefixtures("with_ours")
def test_wins_and_losses_are_ratios_to_the_best_peer(make_report):
    """Validation cuts, single seeds and other benchmarks do not count."""
    page, _ = make_report()

    assert "Wins: mase 0.938 of AutoETS. Losses: crps 1.021 of AutoETS." in page
    assert cells(page, "statecast") == {
        "model": "statecast (ours)",
        "mase": "**1.074**",
        "crps": "0.01910",
        "coverage_80": "",
        "seconds": "10",
        "of the processor": "",
    }
    assert page.count("statecast (ours)") == 1


@pytest.mark.usefixtures("with_ours")
def test_report_has_commands_of_existing_benchmarks(make_report):
    """The commands that measure a case again name modules that can be run."""
    page, _ = make_report()

    commands = page.partition("```console\n")[2].partition("\n```")[0].splitlines()
    assert commands == [
        "python -m benchmarks.accuracy.retail --sets aus_retail --data PATH",
        "python -m benchmarks.peers --data PATH --case aus_retail",
    ]
    assert all(find_spec(command.split()[2]) for command in commands)


@pytest.mark.usefixtures("with_ours")
def test_row_does_not_mix_two_runs(make_report):
    """A model in both files has the row of `peers.jsonl`."""
    page, _ = make_report()

    assert cells(page, "SeasonalNaive")["mase"] == "1.354"


def test_later_line_replaces_an_earlier_one(make_report, folders):
    """Results appended by a later run are the ones in the report."""
    line = dict(zip(KEYS, ("peers", "aus_retail", "AutoETS", "mase", 2.0, 40.0), strict=True))
    with (folders[0] / "peers.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")

    page, _ = make_report()

    assert cells(page, "AutoETS")["mase"] == "2.000"


def test_same_results_give_the_same_bytes_between_the_markers(make_report):
    """The page outside the markers is left as it is, and plots have no dates."""
    page, plots = make_report()

    assert page.startswith("# Before\n\n" + report.BEGIN)
    assert page.endswith(report.END + "\n\nAfter\n")
    assert "old" not in page
    assert "figures/aus_retail.svg" in page
    assert b"AutoETS" in plots["aus_retail.svg"]
    assert b"dc:date" not in plots["aus_retail.svg"]
    assert make_report() == (page, plots)


def test_page_without_markers_is_refused_and_left_unchanged(make_report, folders):
    """The report needs each marker once and in order."""
    page = folders[1] / "benchmarks.md"
    page.write_text(f"{report.END} {report.BEGIN}")

    with pytest.raises(SystemExit, match="once each"):
        make_report()

    assert page.read_text() == f"{report.END} {report.BEGIN}"


@pytest.fixture
def case():
    """Return two monthly series with an unobserved step and a price known ahead."""
    ds = pd.date_range("2020-01-01", periods=27, freq="MS")
    y = np.tile(np.arange(1.0, 28.0), 2)
    frame = pd.DataFrame({"unique_id": np.repeat(["a", "b"], 27), "ds": np.tile(ds, 2), "y": y})
    frame["price"] = np.float32(y + 0.5)
    frame.loc[3, "y"] = np.nan
    in_test = frame["ds"] >= ds[24]
    return Case(
        name="toy",
        train=frame[~in_test].reset_index(drop=True),
        test=frame[in_test].reset_index(drop=True),
        freq="MS",
        horizon=3,
        season_length=12,
        known_future=("price",),
        fill="mask",
        static=pd.DataFrame({"unique_id": ["a", "b"], "size": [1.0, 2.0], "kind": ["x", "y"]}),
    )


@pytest.mark.parametrize(("fill", "value", "observed"), [("mask", 3.0, False), ("zero", 0.0, True)])
def test_peer_gets_filled_steps_and_no_future_values(case, tmp_path, fill, value, observed):
    """Missing values are filled as the set says, and the future table has no `y`."""
    handover.write(replace(case, fill=fill), "AutoETS", tmp_path, budget_s=5.0)

    data = exchange.read_input(tmp_path)

    assert (data.train["y"].iloc[3], data.train["observed"].iloc[3]) == (value, observed)
    assert data.train["ds"].max() < data.future["ds"].min()
    assert list(data.future.columns) == ["unique_id", "ds", "price"]
    assert data.task.static_real == ("size",)
    assert data.task.static_categories == {"kind": 2}
    assert (data.task.period, data.task.seasons, data.task.budget_s) == ("M", (12,), 5.0)


def test_peer_forecasts_in_its_own_process(case, tmp_path):
    """The seasonal naive repeats the last year and reports intervals and seconds."""
    handover.write(case, "SeasonalNaive", tmp_path, budget_s=None)

    run = handover.call(Path(sys.executable), "SeasonalNaive", tmp_path, limit_s=300)
    table = handover.read(case, "SeasonalNaive", pd.read_parquet(tmp_path / "forecasts.parquet"))

    last_year = case.train[case.train["ds"].between("2021-01-01", "2021-03-01")]["y"]
    assert table["SeasonalNaive"].tolist() == last_year.tolist()
    assert (table["SeasonalNaive-hi-95"] > table["SeasonalNaive-hi-80"]).all()
    assert run["fit_seconds"] > 0
    assert run["stopped"] is False


def test_failed_peer_is_reported_with_its_last_line(case, tmp_path):
    """An unreadable table ends the process; the message has the exit status and the reason."""
    handover.write(case, "SeasonalNaive", tmp_path, budget_s=None)
    (tmp_path / "train.parquet").write_bytes(b"no table")

    with pytest.raises(handover.PeerFailed, match=r"exit status 1: .*[Pp]arquet"):
        handover.call(Path(sys.executable), "SeasonalNaive", tmp_path, limit_s=300)


def test_negative_forecasts_are_clipped_and_missing_ones_refused(case):
    """The mean is the point forecast, the median is a quantile, and every step needs both."""
    forecasts = case.test[["unique_id", "ds"]].assign(**{"mean": -1.0, "0.5": 2.0})

    table = handover.read(case, "peer", forecasts)

    assert set(table["peer"]) == {0.0}
    assert set(table["peer_ql0.5"]) == {2.0}
    with pytest.raises(handover.PeerFailed, match="1 of 6 steps"):
        handover.read(case, "peer", forecasts.iloc[1:])
