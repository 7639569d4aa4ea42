"""Peers get what a case says and no more; the report says what the results say and no more."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import report
from benchmarks.accuracy.cases import Case
from benchmarks.peers import exchange, handover

# Lines of real runs, shortened to what a report reads.
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
    """A folder of results, and one of documents whose page has the markers."""
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    docs.mkdir()
    (docs / "benchmarks.md").write_text(f"# Before\n\n{report.BEGIN}\nold\n{report.END}\n\nAfter\n")
    lines = [dict(zip(KEYS, values, strict=True)) for values in RESULTS]
    lines = [line | (STOPPED if "neural" in line["model"] else {}) for line in lines] + [FAILED]
    (results / "peers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return results, docs


@pytest.fixture
def made(folders, monkeypatch):
    """Make the report anew and return the page and the bytes of the plots."""
    results, docs = folders

    def make():
        monkeypatch.setattr("sys.argv", ["report", "--results", str(results), "--docs", str(docs)])
        report.main()
        plots = {path.name: path.read_bytes() for path in (docs / "figures").iterdir()}
        return (docs / "benchmarks.md").read_text(), plots

    return make


@pytest.fixture
def with_ours(folders):
    """Results of Statecast, and of a baseline beside it, in a file of their own."""
    lines = [json.dumps(dict(zip(KEYS, values, strict=True))) for values in OURS]
    (folders[0] / "statecast.jsonl").write_text("\n".join(lines) + "\n")


def cells(page, model):
    """The cells of a model's row, by the names of the columns."""
    table = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("|")]
    head = [name.strip() for name in table[0]]
    row = next(row for row in table if row[0].strip().split()[0] == model)
    return dict(zip(head, (cell.strip() for cell in row), strict=True))


def test_a_row_has_what_was_measured_and_empty_cells_for_the_rest(made):
    """A missing metric is an empty cell; processor seconds need both of their parts."""
    page, _ = made()

    naive, lstm = cells(page, "SeasonalNaive"), cells(page, "neuralforecast-lstm")
    assert (naive["mase"], naive["coverage_80"]) == ("1.354", "**0.770**")
    assert naive["of the processor"] == "0.1"
    assert (lstm["mase"], lstm["crps"], lstm["of the processor"]) == ("2.672", "", "")
    assert set(list(cells(page, "darts-lstm").values())[1:]) == {""}


def test_rows_are_in_order_of_the_main_metric_and_the_best_is_bold(made):
    """Best first; each error's smallest is bold, and the coverage nearest to its level."""
    page, _ = made()

    order = re.findall(r"^\| (\w[\w-]*)", page, flags=re.MULTILINE)
    assert order == ["model", "AutoETS", "SeasonalNaive", "neuralforecast-lstm", "darts-lstm"]
    assert cells(page, "AutoETS")["mase"] == "**1.145**"
    assert cells(page, "AutoETS")["crps"] == "**0.01870**"


def test_the_budget_and_failures_are_told(made):
    """Where training was cut short or there is no forecast, the report says so."""
    page, _ = made()

    assert (
        "- neuralforecast-lstm: input_size=54; "
        "training stopped at its budget, 120 s of the processor"
    ) in page
    assert "- darts-lstm: no forecast: given up after 720 s" in page
    assert "No result of Statecast yet." in page


@pytest.mark.usefixtures("with_ours")
def test_wins_and_losses_are_ratios_to_the_best_peer(made):
    """A loss is told like a win; validation cuts, single seeds and other benchmarks are no part."""
    page, _ = made()

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
def test_a_row_is_not_put_together_from_two_runs(made):
    """A peer that ran beside Statecast too keeps the row of the run of the peers."""
    page, _ = made()

    assert cells(page, "SeasonalNaive")["mase"] == "1.354"


def test_later_lines_of_a_file_count(made, folders):
    """Results added by a later run replace the earlier ones."""
    line = dict(zip(KEYS, ("peers", "aus_retail", "AutoETS", "mase", 2.0, 40.0), strict=True))
    with (folders[0] / "peers.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")

    page, _ = made()

    assert cells(page, "AutoETS")["mase"] == "2.000"


def test_only_the_part_between_the_markers_changes_and_the_bytes_repeat(made):
    """The same results give the same page and the same plots, byte for byte."""
    page, plots = made()

    assert page.startswith("# Before\n\n" + report.BEGIN)
    assert page.endswith(report.END + "\n\nAfter\n")
    assert "old" not in page
    assert "figures/aus_retail.svg" in page
    assert b"AutoETS" in plots["aus_retail.svg"]
    assert b"dc:date" not in plots["aus_retail.svg"]
    assert made() == (page, plots)


def test_a_page_without_markers_is_refused_and_left_alone(made, folders):
    """Nothing is written over a page that does not say where the tables go."""
    page = folders[1] / "benchmarks.md"
    page.write_text(f"{report.END} {report.BEGIN}")

    with pytest.raises(SystemExit, match="once each"):
        made()

    assert page.read_text() == f"{report.END} {report.BEGIN}"


@pytest.fixture
def case():
    """Two years of two monthly series, one step unobserved, a price known ahead."""
    ds = pd.date_range("2020-01-01", periods=27, freq="MS")
    y = np.tile(np.arange(1.0, 28.0), 2)
    frame = pd.DataFrame({"unique_id": np.repeat(["a", "b"], 27), "ds": np.tile(ds, 2), "y": y})
    frame["price"] = np.float32(y + 0.5)
    frame.loc[3, "y"] = np.nan
    ahead = frame["ds"] >= ds[24]
    return Case(
        name="toy",
        train=frame[~ahead].reset_index(drop=True),
        test=frame[ahead].reset_index(drop=True),
        freq="MS",
        horizon=3,
        season_length=12,
        known_future=("price",),
        fill="mask",
        static=pd.DataFrame({"unique_id": ["a", "b"], "size": [1.0, 2.0], "kind": ["x", "y"]}),
    )


@pytest.mark.parametrize(("fill", "value", "observed"), [("mask", 3.0, False), ("zero", 0.0, True)])
def test_a_peer_gets_filled_steps_and_nothing_of_the_future(case, tmp_path, fill, value, observed):
    """A step without a value is what the set says; what is to be forecast is not handed over."""
    handover.write(replace(case, fill=fill), "AutoETS", tmp_path, budget_s=5.0)

    given = exchange.receive(tmp_path)

    assert (given.train["y"].iloc[3], given.train["observed"].iloc[3]) == (value, observed)
    assert given.train["ds"].max() < given.future["ds"].min()
    assert list(given.future.columns) == ["unique_id", "ds", "price"]
    assert given.task.static_real == ("size",)
    assert given.task.static_categories == {"kind": 2}
    assert (given.task.period, given.task.seasons, given.task.budget_s) == ("M", (12,), 5.0)


def test_a_peer_answers_from_a_process_of_its_own(case, tmp_path):
    """The seasonal naive repeats the last year, with intervals and the seconds it took."""
    handover.write(case, "SeasonalNaive", tmp_path, budget_s=None)

    run = handover.call(Path(sys.executable), "SeasonalNaive", tmp_path, limit_s=300)
    table = handover.read(case, "SeasonalNaive", pd.read_parquet(tmp_path / "forecasts.parquet"))

    last_year = case.train[case.train["ds"].between("2021-01-01", "2021-03-01")]["y"]
    assert table["SeasonalNaive"].tolist() == last_year.tolist()
    assert (table["SeasonalNaive-hi-95"] > table["SeasonalNaive-hi-80"]).all()
    assert run["fit_seconds"] > 0
    assert run["stopped"] is False


def test_a_peer_that_breaks_is_reported_with_its_last_words(case, tmp_path):
    """An unreadable task ends the process; the message says how."""
    handover.write(case, "SeasonalNaive", tmp_path, budget_s=None)
    (tmp_path / "train.parquet").write_bytes(b"no table")

    with pytest.raises(handover.PeerFailed, match=r"exit status 1: .*[Pp]arquet"):
        handover.call(Path(sys.executable), "SeasonalNaive", tmp_path, limit_s=300)


def test_forecasts_below_zero_are_cut_and_missing_ones_refused(case):
    """The mean is the point forecast and the median a quantile; every step needs both."""
    made = case.test[["unique_id", "ds"]].assign(**{"mean": -1.0, "0.5": 2.0})

    table = handover.read(case, "peer", made)

    assert set(table["peer"]) == {0.0}
    assert set(table["peer_ql0.5"]) == {2.0}
    with pytest.raises(handover.PeerFailed, match="1 of 6 steps"):
        handover.read(case, "peer", made.iloc[1:])
