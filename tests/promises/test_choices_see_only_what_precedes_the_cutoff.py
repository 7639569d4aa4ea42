"""Promise 15: scalers, calibration and choices see only what precedes the cutoff."""

from dataclasses import replace

from forecast.training.train import train
from tests.helpers.training import weights


def test_scaling_and_calibration_see_nothing_after_the_cutoff(panel, config):
    """Training on what precedes a cutoff gives the same bundle whatever comes after it."""
    cut = panel.lengths - 12
    changed = replace(panel, values=panel.values.copy())
    for begin, end in zip(panel.indptr[:-1] + cut, panel.indptr[1:], strict=True):
        changed.values[begin:end] = 1e9

    assert train(panel.head(cut), config).bundle.digest == (
        train(changed.head(cut), config).bundle.digest
    )


def test_the_first_phase_does_not_learn_from_held_out_steps(panel, config):
    """Without a second phase, nothing but the shrinkage depends on the held-out steps."""
    config = replace(
        config, train=replace(config.train, max_steps=10, val_size=12, finish_share=0.0)
    )
    changed = replace(panel, values=panel.values.copy())
    for end in panel.indptr[1:]:
        changed.values[end - 12 : end] *= 1.5

    ours, theirs = (weights(train(p, config).bundle) for p in (panel, changed))
    ours.pop("point.trust"), theirs.pop("point.trust")
    assert ours == theirs
