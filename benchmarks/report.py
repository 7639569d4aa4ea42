"""
Write the tables and plots of docs/benchmarks.md from the results in benchmarks/results.

    make bench-report

The report reads every `*.jsonl` file there: result lines as the benchmarks print them, those of
peers with their settings and whether training stopped at its budget. It writes the part between the
two markers of `docs/benchmarks.md`, and for each case a plot of error against seconds in
`docs/figures`. The same results give the same bytes. A cell is empty if nothing was measured.

The row of a model with results in several files comes from `peers.jsonl` if it is there, else from
the first file by name, so that no row mixes two runs. A later line of a file replaces an earlier
one of the same case, model and metric. Validation cuts and single seeds are left out.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

BEGIN, END = "<!-- tables:begin -->", "<!-- tables:end -->"
OURS = "statecast"
MAIN = {"m4": "owa", "m5": "wrmsse_l1_9", "carparts": "crps", "stocks": "qlike_1"}
"""The metric that sorts a table, by case or by the first word of its name; otherwise `mase`."""
ERRORS = (
    "qlike_1",
    "qlike_5",
    "qlike_22",
    "owa",
    "wrmsse_l1_9",
    "wrmsse_l1_12",
    "mase",
    "wape",
    "smape",
    "rmsse",
    "crps",
    "msis",
)
"""Metrics for which lower is better, in the order of the columns."""
COVERAGES = {"coverage_80": 0.80, "coverage_95": 0.95}
"""Nominal coverage of each column of coverages."""
MARKERS = "osv^<>PX"
SECONDS = {"seconds": "seconds", "cpu_seconds": "of the processor", "steps": "steps"}
"""Columns of costs, and how the table names them."""


@dataclass(slots=True)
class Row:
    """The results of one model on one case."""

    case: str
    model: str
    benchmark: str = ""
    """Name of the benchmark that printed the results."""
    values: dict[str, float] = field(default_factory=dict)
    budget_s: float | None = None
    stopped: bool = False
    settings: str = ""
    failure: str = ""

    @property
    def ours(self) -> bool:
        """True if the model is Statecast."""
        return self.model.split("-")[0] == OURS


def main() -> None:
    """Write the tables and the plots."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    files = sorted(args.results.glob("*.jsonl"), key=lambda path: (path.stem != "peers", path.name))
    rows = merge(read(path.read_text(encoding="utf-8").splitlines()) for path in files)
    page = args.docs / "benchmarks.md"
    text = replace_between_markers(page.read_text(encoding="utf-8"), tables(rows), page)
    figures = args.docs / "figures"
    figures.mkdir(exist_ok=True)
    for case in sorted({row.case for row in rows}):
        plot([row for row in rows if row.case == case], figures / f"{case}.svg")
    page.write_text(text, encoding="utf-8")


def read(lines: Iterable[str]) -> dict[tuple[str, str], Row]:
    """
    Read the result lines of one file and return its rows by case and model.

    >>> line = '{"benchmark": "m4", "case": "hourly", "model": "a", "metric": "owa", "value": 0.5, '
    >>> rows = read([line + '"seconds": 2.0}'])
    >>> rows["m4_hourly", "a"].values
    {'seconds': 2.0, 'owa': 0.5}
    """
    rows: dict[tuple[str, str], Row] = {}
    for text in lines:
        line = json.loads(text)
        case = case_of(line)
        if case is None:
            continue
        key = (case, line["model"])
        row = rows.setdefault(key, Row(*key))
        if line["metric"] == "failed":
            rows[key] = Row(*key, budget_s=line["budget_s"], failure=line["note"])
            continue
        row.failure, row.benchmark = "", line["benchmark"]
        row.values["seconds"] = line["seconds"]
        row.values[line["metric"]] = line["value"]
        row.budget_s = line.get("budget_s")
        row.stopped = line.get("stopped", False)
        row.settings = line.get("settings", "")
    for row in rows.values():
        seconds = [row.values.get(f"{part}_cpu_seconds") for part in ("fit", "predict")]
        measured = [value for value in seconds if value is not None]
        if len(measured) == len(seconds):
            row.values["cpu_seconds"] = sum(measured)
    return rows


def case_of(line: Mapping[str, Any]) -> str | None:
    """
    Return the case of a line, or None for validation cuts, single seeds and other benchmarks.

    >>> case_of({"benchmark": "m4", "case": "hourly"})
    'm4_hourly'
    >>> case_of({"benchmark": "retail", "case": "pbs_val"}) is None
    True
    """
    name: str = line["case"]
    if line["benchmark"] not in ("m4", "m5", "retail", "unseen", "stocks", "peers") or "/" in name:
        return None
    if name.endswith("_val"):
        return None
    return f"{line['benchmark']}_{name}" if line["benchmark"] in ("m4", "stocks") else name


def merge(files: Iterable[Mapping[tuple[str, str], Row]]) -> list[Row]:
    """Return the rows of all files; the first file with a model on a case gives its row."""
    rows: dict[tuple[str, str], Row] = {}
    for file in files:
        for key, row in file.items():
            rows.setdefault(key, row)
    return list(rows.values())


def tables(rows: list[Row]) -> str:
    """Return the sections of all cases, the text between the markers."""
    parts = [
        section([row for row in rows if row.case == case])
        for case in sorted({row.case for row in rows})
    ]
    return "\n\n".join(parts)


def section(rows: list[Row]) -> str:
    """Return the section of a case: wins and losses, table, plot, remarks and commands."""
    case = rows[0].case
    rows = sort_rows(rows)
    columns = [
        name for name in (*ERRORS, *COVERAGES, *SECONDS) if any(name in row.values for row in rows)
    ]
    best = {name: best_of(name, rows) for name in columns}
    head = ["model", *(SECONDS.get(name, name) for name in columns)]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for row in rows:
        cells = [f"{row.model} (ours)" if row.ours else row.model]
        for name in columns:
            text = format_cell(name, row.values.get(name))
            cells.append(f"**{text}**" if text and row.values.get(name) == best[name] else text)
        lines.append("| " + " | ".join(cells) + " |")
    remarks = [f"- {row.model}: {text}" for row in rows if (text := remark(row))]
    return "\n\n".join(
        part
        for part in (
            f"### {case}",
            verdict(rows),
            "\n".join(lines),
            f"![{main_metric(case)} against seconds](figures/{case}.svg)"
            if plot_points(rows)
            else "",
            "\n".join(remarks),
            "\n".join(["```console", *commands(rows), "```"]),
        )
        if part
    )


def main_metric(case: str) -> str:
    """
    Return the metric that sorts the table of a case.

    >>> main_metric("m4_hourly"), main_metric("pbs")
    ('owa', 'mase')
    """
    return MAIN.get(case) or MAIN.get(case.split("_")[0]) or "mase"


def sort_rows(rows: list[Row]) -> list[Row]:
    """Return the rows with the best first, and those without the main metric last, by name."""
    metric = main_metric(rows[0].case)
    return sorted(
        rows, key=lambda row: (row.values.get(metric, float("inf")), not row.ours, row.model)
    )


def best_of(name: str, rows: list[Row]) -> float | None:
    """Return the best value of a column, or None for columns without a best, such as seconds."""
    values = [row.values[name] for row in rows if name in row.values]
    if name in ERRORS:
        return min(values)
    if name in COVERAGES:
        return min(values, key=lambda value: abs(value - COVERAGES[name]))
    return None


def format_cell(name: str, value: float | None) -> str:
    """
    Return the text of a cell: four digits, or three decimals of a share; empty for None.

    >>> format_cell("mase", 1.23456), format_cell("crps", 0.0344), format_cell("mase", None)
    ('1.235', '0.03440', '')
    """
    if value is None:
        return ""
    if name in SECONDS:
        return f"{value:,.0f}" if value >= 10 or name == "steps" else f"{value:.1f}"
    if name in COVERAGES:
        return f"{value:.3f}"
    return f"{value:#.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def verdict(rows: list[Row]) -> str:
    """
    Return the wins and losses of Statecast, as ratios of its errors to those of the best peer.

    >>> ours = Row("pbs", "statecast", values={"mase": 0.9, "crps": 0.2})
    >>> peer = Row("pbs", "AutoETS", values={"mase": 1.0, "crps": 0.1})
    >>> print(verdict([ours, peer]))
    Wins: mase 0.900 of AutoETS. Losses: crps 2.000 of AutoETS.
    """
    ours = [row for row in rows if row.ours]
    if not ours:
        return "No result of Statecast yet."
    names_by_kind: dict[str, list[str]] = {"Wins": [], "Ties": [], "Losses": []}
    for name in ERRORS:
        errors = [row.values[name] for row in ours if name in row.values]
        peers = {r.model: r.values[name] for r in rows if not r.ours and name in r.values}
        if not errors or not peers:
            continue
        peer = min(peers, key=lambda model: (peers[model], model))
        win_or_loss = "Wins" if min(errors) < peers[peer] else "Losses"
        kind = "Ties" if min(errors) == peers[peer] else win_or_loss
        ratio = f"{min(errors) / peers[peer]:.3f} of " if peers[peer] else ""
        names_by_kind[kind].append(f"{name} {ratio}{peer}")
    sentences = [f"{kind}: {', '.join(names)}." for kind, names in names_by_kind.items() if names]
    return " ".join(sentences) or "No metric was measured for both Statecast and a peer."


def remark(row: Row) -> str:
    """Return the settings of a row and how its training ended, or an empty text."""
    parts = [row.settings] if row.settings else []
    if row.stopped and row.budget_s is not None:
        parts.append(f"training stopped at its budget, {row.budget_s:g} s of the processor")
    if row.failure:
        parts.append(f"no forecast: {row.failure}")
    return "; ".join(parts)


def commands(rows: list[Row]) -> list[str]:
    """Return the commands that measure a case again."""
    case, lines = rows[0].case, []
    for name in {row.benchmark for row in rows if row.ours}:
        options = {"m4": f" --freq {case.partition('_')[2]}", "m5": "", "stocks": ""}
        options_text = options.get(name, f" --sets {case}")
        lines.append(f"python -m benchmarks.accuracy.{name}{options_text} --data PATH")
    if any(row.settings or row.failure for row in rows):
        lines.append(f"python -m benchmarks.peers --data PATH --case {case}")
    return lines


def plot_points(rows: list[Row]) -> list[tuple[Row, float, float]]:
    """Return each row with its seconds and its error; processor seconds if all rows have them."""
    metric = main_metric(rows[0].case)
    scored = [row for row in rows if metric in row.values]
    clock = "cpu_seconds" if all("cpu_seconds" in row.values for row in scored) else "seconds"
    return [
        (row, max(row.values[clock], 0.01), row.values[metric])
        for row in scored
        if clock in row.values
    ]


def plot(rows: list[Row], path: Path) -> None:
    """Plot error against seconds as an SVG file whose bytes depend only on the rows."""
    points = plot_points(sort_rows(rows))
    if not points:
        path.unlink(missing_ok=True)
        return
    processor = all("cpu_seconds" in row.values for row, _, _ in points)
    with mpl.rc_context({"svg.hashsalt": OURS, "svg.fonttype": "none"}):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for number, (row, seconds, error) in enumerate(points):
            marker, color = MARKERS[number % 8], f"C{number % 10}"
            if row.ours:
                marker, color = "D", "black"
            axes.plot(seconds, error, marker, color=color, label=row.model)
        axes.set_xlabel("processor seconds" if processor else "seconds, training and forecast")
        axes.set_ylabel(main_metric(rows[0].case))
        axes.set_title(rows[0].case)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", fontsize=8)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def replace_between_markers(page: str, block: str, path: Path) -> str:
    """
    Return the page with the text between its two markers replaced.

    Raises:
        SystemExit: The page does not have each marker once, in order.

    >>> page = replace_between_markers(f"a {BEGIN} old {END} b", "new", Path("p.md"))
    >>> page.splitlines()
    ['a <!-- tables:begin -->', '', 'new', '', '<!-- tables:end --> b']
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after or END in before:
        raise SystemExit(f"{path} must have {BEGIN} and then {END}, once each")
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"


if __name__ == "__main__":
    main()
