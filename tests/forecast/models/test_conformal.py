"""Conformal factors scale quantiles so that each covers its share of the residuals."""

from statistics import NormalDist

import numpy as np
import pytest

from forecast.models.conformal import apply_factors, fit_factors

UPPER = (0.75, 0.9, 0.975)


def test_factors_make_each_quantile_cover_its_share():
    """On new draws from the same skewed distribution, coverage is within 2 points."""
    rng = np.random.default_rng(0)
    distances = np.tile(np.array([0.3, 0.5, 0.6]), (4000, 2, 2, 1))
    known = np.ones((4000, 2), np.bool_)
    past, future = rng.gumbel(size=(2, 4000, 2)) - 0.3665

    corrected = apply_factors(distances, fit_factors(past, distances, known, UPPER, 4000.0))

    for u, quantile in enumerate(UPPER):
        above = (future <= corrected[:, 1, :, u]).mean()
        below = (future >= -corrected[:, 0, :, u]).mean()
        assert abs(above - quantile) < 0.02
        assert abs(below - quantile) < 0.02


def test_unobserved_targets_have_no_influence():
    """A masked outlier changes nothing; a horizon without targets copies the one before it."""
    rng = np.random.default_rng(1)
    residual, distances = rng.normal(size=(200, 2)), np.ones((200, 2, 2, 3))
    known = np.ones((200, 2), np.bool_)
    known[:, 1] = False
    known[0, 0] = False
    wild = residual.copy()
    wild[0, 0] = 1e9

    factors = fit_factors(residual, distances, known, UPPER, 200.0)

    np.testing.assert_array_equal(factors, fit_factors(wild, distances, known, UPPER, 200.0))
    np.testing.assert_array_equal(factors[:, 1], factors[:, 0])
    assert (factors != 1).all()


def test_intervals_from_few_forecasts_keep_their_coverage():
    """Over many samples of ten residuals, the mean coverage is close to the level."""
    rng = np.random.default_rng(2)
    normal = np.array([NormalDist().inv_cdf(q) for q in UPPER])
    distances, known = np.tile(normal, (10, 2, 1, 1)), np.ones((10, 1), np.bool_)
    cdf = NormalDist().cdf
    coverage = []
    for residual in rng.normal(size=(2000, 10, 1)):
        low, high = fit_factors(residual, distances, known, UPPER, 10.0)[:, 0] * normal
        coverage.append([cdf(b) - cdf(-a) for a, b in zip(low, high, strict=True)])

    np.testing.assert_allclose(np.mean(coverage, axis=0), [0.5, 0.8, 0.95], atol=0.035)


def test_few_forecasts_give_more_symmetric_factors():
    """One-sided residuals make the interval lopsided only with a large effective sample."""
    residual, distances = np.array([[1.0, 3.0], [2.0, 4.0]] * 10), np.ones((20, 2, 2, 3))
    known = np.ones((20, 2), np.bool_)

    few = fit_factors(residual, distances, known, UPPER, 2.0)
    many = fit_factors(residual, distances, known, UPPER, 1e6)

    assert (few[1] / few[0]).max() < 2.5
    assert (many[1] / many[0]).min() > 5


def test_factors_are_one_without_targets():
    """Without any observed target, the distances keep their size."""
    factors = fit_factors(
        np.ones((2, 1)), np.ones((2, 2, 1, 3)), np.zeros((2, 1), np.bool_), UPPER, 2.0
    )
    assert (factors == 1).all()


def test_a_quantile_beyond_the_sample_has_the_width_of_the_next_inner_one():
    """Three residuals cannot estimate the 97.5 % quantile."""
    residual, distances = np.array([[-1.0], [0.0], [2.0]]), np.ones((3, 2, 1, 3))

    below, above = fit_factors(residual, distances, np.ones((3, 1), np.bool_), UPPER, 1e6)[:, 0]

    assert below == pytest.approx([1.0, 1.0, 1.0], rel=1e-5)
    assert above == pytest.approx([2.0, 2.0, 2.0], rel=1e-5)


def test_corrected_quantiles_do_not_cross():
    """An outer quantile is never closer to the median than an inner one."""
    distances = np.array([[[[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]]])
    factors = np.array([[[2.0, 0.5, 1.0]], [[1.0, 1.0, 1.0]]])

    corrected = apply_factors(distances, factors)

    assert corrected[0, 0, 0].tolist() == [2.0, 2.0, 3.0]
