"""The public names are listed once, loaded on first use, and all that the docs import."""

import importlib
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import forecast
import statecast
from forecast import errors

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DEFINED_IN = {
    "forecast.bundle": {"Bundle", "load_bundle", "save_bundle"},
    "forecast.calendars.calendar": {"Calendar"},
    "forecast.config": {"Config", "DataConfig", "ModelConfig", "TrainConfig"},
    "forecast.data.io": {"read_table"},
    "forecast.data.panel": {"Panel"},
    "forecast.data.validation": {"validate"},
    "forecast.errors": {
        "BundleError",
        "CheckpointError",
        "ConfigError",
        "DataError",
        "ForecastError",
        "ModelSourceError",
        "NotFitted",
        "PortInUse",
        "StateError",
        "UnknownQuantile",
        "UnknownSeries",
        "UnseenHorizon",
    },
    "forecast.evaluation.backtest": {"backtest"},
    "forecast.forecaster": {"Forecaster"},
    "forecast.inference.forecasting": {"forecast"},
    "forecast.inference.observing": {"observe", "warm_up"},
    "forecast.inference.states": {"States"},
    "forecast.training.train": {"train"},
}
MODULES = {"forecast.data.ohlc", "forecast.evaluation.baselines", "forecast.evaluation.metrics"}


def run_in_new_process(code: str) -> str:
    """Return what `code` prints in an interpreter that has imported nothing yet."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()


def test_the_public_names_are_listed():
    """A new public name is a promise to users, so it is added to this list too."""
    names = {name for defined in DEFINED_IN.values() for name in defined}
    names |= {module.rpartition(".")[2] for module in MODULES}

    assert set(forecast.__all__) == names | {"__version__"}
    assert len(set(forecast.__all__)) == len(forecast.__all__)
    assert statecast.__all__ == forecast.__all__
    assert dir(statecast) == dir(forecast) == sorted(forecast.__all__)


@pytest.mark.parametrize("package", [forecast, statecast], ids=lambda package: package.__name__)
def test_each_name_is_what_its_module_defines(package):
    """Exported classes, functions and modules are the objects of the defining modules."""
    for module, names in DEFINED_IN.items():
        for name in names:
            exported = getattr(package, name)
            assert exported is getattr(importlib.import_module(module), name)
            assert exported.__module__ == module
    for module in MODULES:
        assert getattr(package, module.rpartition(".")[2]) is importlib.import_module(module)
    assert re.fullmatch(r"\d+\.\d+\.\d+", package.__version__)


def test_the_root_of_every_group_of_errors_is_public():
    """`ForecastError` and its direct children can be caught by their public names."""
    groups = [
        error
        for error in errors.ForecastError.__subclasses__()
        if error.__module__ == errors.__name__
    ]

    assert {error.__name__ for error in groups} <= set(forecast.__all__)


def test_a_name_that_is_not_exported_is_no_attribute():
    """A misspelled name is an AttributeError or an ImportError, as for any module."""
    with pytest.raises(AttributeError, match="'forecast' has no attribute 'Forcaster'"):
        forecast.Forcaster  # noqa: B018
    with pytest.raises(AttributeError, match="'statecast' has no attribute 'forecaster'"):
        statecast.forecaster  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nearest'"):
        exec("from statecast import nearest")


def test_submodules_do_not_hide_the_functions():
    """`forecast.backtest` stays the function after every module of the library is imported."""
    code = (
        "import importlib, pkgutil, forecast\n"
        "for module in pkgutil.walk_packages(forecast.__path__, 'forecast.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(*sorted(name for name in forecast.__all__ if callable(getattr(forecast, name))))"
    )

    functions = {
        name
        for name in forecast.__all__
        if not isinstance(getattr(forecast, name), types.ModuleType | str)
    }
    assert set(run_in_new_process(code).split()) == functions


@pytest.mark.parametrize("package", ["forecast", "statecast"])
def test_importing_the_package_loads_no_heavy_library(package):
    """PyTorch, pandas and NumPy are loaded by the first name that needs them."""
    code = (
        f"import sys, {package}\n"
        "heavy = {'torch', 'pandas', 'numpy', 'sklearn'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )

    assert run_in_new_process(code) == ""
    assert "torch" in run_in_new_process(code.replace("heavy =", f"{package}.Forecaster; heavy ="))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_documentation_imports_from_the_public_package(page):
    """No code block of the README or of the docs imports a module of `forecast`."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)

    private = re.findall(r"^\s*(?:from|import) forecast\b.*", "\n".join(blocks), re.MULTILINE)
    assert not private
