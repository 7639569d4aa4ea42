"""Which peers there are, where each one runs, and which run on a set."""

SCRIPTS = {
    "SeasonalNaive": "run_statsforecast.py",
    "AutoETS": "run_statsforecast.py",
    "AutoTheta": "run_statsforecast.py",
    "mlforecast-lightgbm": "run_mlforecast.py",
    "neuralforecast-lstm": "run_neuralforecast.py",
    "gluonts-deepar": "run_gluonts.py",
    "neuralforecast-nhits": "run_neuralforecast.py",
    "neuralforecast-gru": "run_neuralforecast.py",
    "darts-lstm": "run_darts.py",
    "neuralforecast-lstm-mae": "run_neuralforecast.py",
}
"""A model, and the script that runs it in the environment of the peers."""
USUAL = tuple(name for name in SCRIPTS if name != "neuralforecast-lstm-mae")
CHOSEN = {
    "m4_hourly": tuple(SCRIPTS),
    "m5": ("SeasonalNaive", "mlforecast-lightgbm", "neuralforecast-lstm"),
}
"""Models of a set where they are not the usual ones."""
BUDGET_S = 120.0
BUDGETS_S: dict[tuple[str, str], float | None] = {
    ("m4_hourly", "neuralforecast-lstm"): None,  # all of its 1,000 steps
    ("m4_hourly", "neuralforecast-lstm-mae"): None,
    ("m5", "mlforecast-lightgbm"): 600.0,
    ("m5", "neuralforecast-lstm"): 600.0,
}
"""Seconds of training where they are not the usual ones; None for no limit."""
LIMIT_S = 600.0
"""Beyond its budget, after which a run is given up: the statistical models know no budget."""
UNLIMITED_S = 4 * 3600.0
"""After which a run without a budget is given up."""


def models_of(case: str) -> tuple[str, ...]:
    """
    The peers that run on a set.

    >>> "gluonts-deepar" in models_of("pbs"), "gluonts-deepar" in models_of("m5")
    (True, False)
    """
    return CHOSEN.get(case, USUAL)


def budget_of(case: str, model: str, usual: float = BUDGET_S) -> float | None:
    """
    Processor seconds of training that a peer gets on a set; None for no limit.

    >>> budget_of("pbs", "darts-lstm"), budget_of("m5", "neuralforecast-lstm")
    (120.0, 600.0)
    """
    return BUDGETS_S.get((case, model), usual)
