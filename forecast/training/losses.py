"""Masked training losses in torch. Targets that are not observed cost nothing."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CAP = 50.0
"""Scaled errors are clipped here, so that one outlier does not dominate the gradient."""


def masked_mean(
    loss: Float[Tensor, "*target"], known: Bool[Tensor, "*target"]
) -> Float[Tensor, ""]:
    """
    Return the mean loss of the known targets, or 0 if there is none.

    >>> masked_mean(torch.tensor([1.0, 9.0]), torch.tensor([True, False]))
    tensor(1.)
    """
    return torch.where(known, loss, 0.0).sum() / known.sum().clamp(min=1)


def point_loss(
    y: Float[Tensor, "*target"],
    y_hat: Float[Tensor, "*target"],
    scale: Float[Tensor, "*#target"],
    *,
    relative: float | None,
    scaled: float,
) -> Float[Tensor, "*target"]:
    """
    Return half symmetric relative error, half scaled error: the M4 competition's measure as a loss.

    Args:
        y: Actual values.
        y_hat: Point forecasts, in the unit of `y`.
        scale: Mean absolute seasonal difference of the series in the training part.
        relative: sMAPE (0 to 200) of the seasonal naive on the training part. None uses the scaled
            error alone, for data that may be negative.
        scaled: MASE of the seasonal naive on the training part.

    References:
        Makridakis, Spiliotis & Assimakopoulos, The M4 competition, IJF 36(1), 2020 (OWA).
    """
    error = (y - y_hat).abs()
    loss = (error / scale / scaled).clamp(max=CAP)
    if relative is not None:
        loss = 0.5 * (loss + 200 * error / (y.abs() + y_hat.abs() + 1e-9) / relative)
    return loss


def poisson_deviance(
    y: Float[Tensor, "*target"], y_hat: Float[Tensor, "*target"]
) -> Float[Tensor, "*target"]:
    """
    Return half the Poisson deviance, which the mean minimises whatever the distribution.

    Pass counts in their own unit, not scaled: the variance of a count depends on its size.

    References:
        Gourieroux, Monfort & Trognon, Pseudo maximum likelihood methods, Econometrica 52(3), 1984.

    >>> poisson_deviance(torch.tensor([0.0, 2.0]), torch.tensor([0.5, 2.0]))
    tensor([0.5000, 0.0000])
    """
    return y_hat - y + torch.xlogy(y, y) - y * y_hat.log()


def total_deviation(
    y_hat: Float[Tensor, "origin horizon"],
    usual: Float[Tensor, "origin horizon"],
    group: Int[Tensor, " origin"],
) -> Float[Tensor, ""]:
    """
    Return the mean squared log ratio of forecast totals to usual totals, over groups of origins.

    When many noisy series share their dates, a network can overfit to the shocks of single dates.
    The totals of its forecasts show that first.

    Args:
        y_hat: Forecasts in the unit of a usual count; 0 where there is no target.
        usual: Usual counts in the same unit; 0 where there is no target.
        group: Group of each origin, numbered from 0: origins that forecast at the same step.
    """
    groups = int(group.max()) + 1
    totals = [
        torch.zeros(groups).index_add(0, group, values.sum(1)) + 1 for values in (y_hat, usual)
    ]
    return (totals[0] / totals[1]).log().square().mean()


def qlike(
    y: Float[Tensor, "origin horizon"],
    y_hat: Float[Tensor, "origin horizon"],
    known: Bool[Tensor, "origin horizon"],
) -> Float[Tensor, "origin horizon"]:
    """
    Return the QLIKE of the mean variance of the first h steps, for each h.

    It is `r - log r - 1`, where `r` is the mean of `y` over the mean of `y_hat`; `log r` is clipped
    to [-6, 6].

    References:
        Patton, Volatility forecast comparison using imperfect volatility proxies, J. of
        Econometrics 160(1), 2011.
    """
    ratio = (y * known).cumsum(-1).clamp(min=1e-30) / (y_hat * known).cumsum(-1).clamp(min=1e-30)
    log_ratio = ratio.log().clamp(-6, 6)
    return log_ratio.exp() - log_ratio - 1


def pinball(
    residual: Float[Tensor, "origin horizon"],
    distances: Float[Tensor, "origin two horizon upper"],
    upper: tuple[float, ...],
    *,
    with_median: bool,
) -> Float[Tensor, "origin horizon"]:
    """
    Return the mean pinball loss of the pairs of quantiles below and above the median.

    Args:
        residual: Target minus median.
        distances: Distance of each quantile from the median, positive: [0] below, [1] above.
        upper: Quantiles above the median; those below mirror them.
        with_median: Add the loss of the median itself.

    References:
        Koenker & Bassett, Regression quantiles, Econometrica 46(1), 1978.
    """
    quantile = distances.new_tensor(upper)[:, None]
    sides = torch.stack([residual, -residual], dim=-2)
    # Upper quantile minus target; mirrored, target minus lower quantile.
    excess = distances.mT + sides[..., None, :]
    # The loss is piecewise linear in the excess, so its slope is a constant to the gradient.
    slope = excess.detach().sign().mul_(0.5).add_(0.5 - quantile)
    total = (slope * excess).flatten(-3, -2).sum(-2) / len(upper)
    return total + 0.5 * residual.abs() if with_median else total
