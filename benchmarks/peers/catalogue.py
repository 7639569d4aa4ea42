"""The peers, the script of each, and the peers and budgets of each case."""

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
"""The script that runs each model in the environment of the peers."""
DEFAULT = tuple(name for name in SCRIPTS if name != "neuralforecast-lstm-mae")
MODELS_BY_CASE = {
    "m4_hourly": tuple(SCRIPTS),
    "m5": ("SeasonalNaive", "mlforecast-lightgbm", "neuralforecast-lstm"),
}
"""Models of a case where they are not the default ones."""
BUDGET_S = 120.0
BUDGETS_S: dict[tuple[str, str], float | None] = {
    ("m4_hourly", "neuralforecast-lstm"): None,  # all of its 1,000 steps
    ("m4_hourly", "neuralforecast-lstm-mae"): None,
    ("m5", "mlforecast-lightgbm"): 600.0,
    ("m5", "neuralforecast-lstm"): 600.0,
}
"""Processor seconds of training where they are not `BUDGET_S`; None means no limit."""
LIMIT_S = 600.0
"""Seconds beyond its budget after which a run is abandoned; statistical models have no budget."""
UNLIMITED_S = 4 * 3600.0
"""Seconds after which a run without a budget is abandoned."""


def models_of(case: str) -> tuple[str, ...]:
    """
    Return the peers that run on a case.

    >>> "gluonts-deepar" in models_of("pbs"), "gluonts-deepar" in models_of("m5")
    (True, False)
    """
    return MODELS_BY_CASE.get(case, DEFAULT)


def budget_of(case: str, model: str, default: float = BUDGET_S) -> float | None:
    """
    Return the processor seconds of training of a peer on a case, or None for no limit.

    >>> budget_of("pbs", "darts-lstm"), budget_of("m5", "neuralforecast-lstm")
    (120.0, 600.0)
    """
    return BUDGETS_S.get((case, model), default)
