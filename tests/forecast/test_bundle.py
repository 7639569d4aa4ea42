"""A saved bundle is loaded as the same model, or refused."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forecast.bundle import JSON_NAME, MAX_BYTES, WEIGHTS_NAME, load_bundle, save_bundle
from forecast.data.panel import Panel
from forecast.data.validation import validate
from forecast.errors import BundleError, DamagedBundle, NewerBundle, WrongType
from forecast.features.static import StaticSpec
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up

BUNDLES = Path(__file__).parents[1] / "compatibility"


def test_a_loaded_bundle_forecasts_the_same(bundle, panel, tmp_path):
    """Digest, configuration and forecasts are equal."""
    save_bundle(bundle, tmp_path / "m")

    loaded = load_bundle(tmp_path / "m")

    assert loaded.digest == bundle.digest
    assert loaded.config == bundle.config
    np.testing.assert_array_equal(
        forecast(loaded, warm_up(bundle, panel), quantiles=(0.1, 0.9)),
        forecast(bundle, warm_up(bundle, panel), quantiles=(0.1, 0.9)),
    )


def test_a_bundle_of_an_earlier_release_is_read(retail, tmp_path):
    """Settings that were added later change neither its digest nor its forecasts."""
    old = load_bundle(BUNDLES / "before_id_from")
    save_bundle(old, tmp_path / "again")
    sales = retail[retail["unique_id"].eq("A3349335T")].tail(120).assign(state="New South Wales")

    panel = Panel.from_frame(validate(sales, old.config.data))

    assert load_bundle(tmp_path / "again").digest == old.digest
    np.testing.assert_allclose(
        forecast(old, warm_up(old, panel))[0, :, 0], [2948.107, 2716.599, 2958.812], rtol=1e-5
    )


def test_a_bundle_is_overwritten_only_on_request(bundle, tmp_path):
    """A second save to the same directory raises, unless `overwrite` is set."""
    save_bundle(bundle, tmp_path / "m")

    with pytest.raises(BundleError, match="already exists"):
        save_bundle(bundle, tmp_path / "m")
    save_bundle(bundle, tmp_path / "m", overwrite=True)

    assert load_bundle(tmp_path / "m").digest == bundle.digest


def test_altered_or_missing_files_are_refused(bundle, tmp_path):
    """A flipped byte, a truncated file, a changed setting and a missing file are each named."""
    save_bundle(bundle, tmp_path / "m")
    weights, text = tmp_path / "m" / WEIGHTS_NAME, tmp_path / "m" / JSON_NAME
    content, settings = weights.read_bytes(), json.loads(text.read_text())

    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedBundle, match="altered or cut short"):
        load_bundle(tmp_path / "m")

    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedBundle, match="altered or cut short"):
        load_bundle(tmp_path / "m")

    weights.write_bytes(content)
    settings["config"]["data"]["kind"] = "real"
    text.write_text(json.dumps(settings))
    with pytest.raises(DamagedBundle, match="was altered"):
        load_bundle(tmp_path / "m")

    settings["config"]["train"]["max_steps"] = None
    text.write_text(json.dumps(settings))
    with pytest.raises(DamagedBundle, match="max_steps is not set"):
        load_bundle(tmp_path / "m")

    text.write_text("{")
    with pytest.raises(DamagedBundle, match="cannot be read"):
        load_bundle(tmp_path / "m")

    text.unlink()
    with pytest.raises(BundleError, match="no bundle here"):
        load_bundle(tmp_path / "m")


@pytest.mark.parametrize("name", [WEIGHTS_NAME, JSON_NAME])
def test_files_of_absurd_size_are_not_read(bundle, tmp_path, name):
    """A huge file in place of a model does not fill the memory of a server."""
    save_bundle(bundle, tmp_path / "m")
    os.truncate(tmp_path / "m" / name, MAX_BYTES + 1)

    with pytest.raises(DamagedBundle, match=f"{name} has 268,435,457 bytes, more than"):
        load_bundle(tmp_path / "m")


def test_a_file_too_large_to_read_is_not_written(bundle, tmp_path):
    """Saving raises, so that the error does not wait until the bundle is loaded."""
    oversized = replace(bundle, facts={"notes": "x" * MAX_BYTES})

    with pytest.raises(BundleError, match="would have 268,"):
        save_bundle(oversized, tmp_path / "m")

    assert list(tmp_path.iterdir()) == []


def test_another_format_version_is_refused(bundle, tmp_path):
    """A bundle in a later format raises an error with its version."""
    save_bundle(bundle, tmp_path / "m")
    text = tmp_path / "m" / JSON_NAME
    text.write_text(json.dumps(json.loads(text.read_text()) | {"version": 99}))

    with pytest.raises(NewerBundle, match="99"):
        load_bundle(tmp_path / "m")


def test_only_a_bundle_is_overwritten(bundle, tmp_path):
    """A wrong path does not delete other files."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")

    with pytest.raises(BundleError, match="is not a bundle"):
        save_bundle(bundle, tmp_path / "mine", overwrite=True)
    save_bundle(bundle, tmp_path / "new")
    save_bundle(bundle, tmp_path / "new", overwrite=True)

    assert (tmp_path / "mine" / "notes.txt").read_text() == "precious"
    assert load_bundle(tmp_path / "new").digest == bundle.digest


def test_static_categories_may_be_numbers_or_text():
    """Categories learned as text match numbers; text in a numeric column raises."""
    text = pd.DataFrame({"floor": ["1", "2"], "size": [10.0, 20.0]}, index=["a", "b"])
    spec = StaticSpec.learn(text)
    numbers = pd.DataFrame({"floor": [2.0], "size": [20.0]}, index=["c"])

    assert spec.encode(numbers, ["c"])[0].tolist() == spec.encode(text, ["b"])[0].tolist()
    with pytest.raises(WrongType, match="'size' holds text"):
        spec.encode(numbers.assign(size="large"), ["c"])
