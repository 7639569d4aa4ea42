"""Losses in torch, masked: a target that is not there costs nothing."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CAP = 50.0
"""A scaled error above this teaches nothing more: one wild value must not own the gradient."""


def masked_mean(
    loss: Float[Tensor, "*target"], known: Bool[Tensor, "*target"]
) -> Float[Tensor, ""]:
    """
    Mean over the known targets; 0 when there is none.

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
    Half symmetric relative error, half scaled error: the M4 competition's measure, as a loss.

    Args:
        y: What happened.
        y_hat: What was forecast, same unit.
        scale: Mean absolute seasonal difference of the series in the training part.
        relative: sMAPE (0 to 200) of the seasonal naive on the training part, or None to leave
            the relative half out, as for data that may be negative.
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
    Half the Poisson deviance, in the unit of `y`: least at the mean, whatever the distribution.

    Never taken of the scaled values: a count's noise follows from its size.

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
    Mean squared logarithm of the groups' forecast totals over what they usually come to.

    Many noisy series that share their dates let a network learn the shocks of those dates by
    heart; the total of its forecasts gives that away first.

    Args:
        y_hat: Forecasts in the unit of a usual count; 0 where there is no target.
        usual: What they usually come to, 0 in the same places.
        group: Origins that forecast at the same step, numbered from 0.
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
    QLIKE of the mean variance of the first h steps, for each h.

    `r - log r - 1` with `r` the mean of `y` over the mean of `y_hat`, clipped at `e^6` either way.

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
    Mean quantile loss over the quantiles below and above the median, and the median's own.

    Args:
        residual: Target minus median.
        distances: Of each quantile from the median, positive: [0] below, [1] above.
        upper: The quantiles above the median; those below mirror them.
        with_median: Whether the median is learned here too.

    References:
        Koenker & Bassett, Regression quantiles, Econometrica 46(1), 1978.
    """
    level = distances.new_tensor(upper)[:, None]
    sides = torch.stack([residual, -residual], dim=-2)
    beyond = distances.mT + sides[..., None, :]  # of a quantile over the target; below, mirrored
    # straight on either side: the slope, constant to the gradient, times the place is the loss
    slope = beyond.detach().sign().mul_(0.5).add_(0.5 - level)
    total = (slope * beyond).flatten(-3, -2).sum(-2) / len(upper)
    return total + 0.5 * residual.abs() if with_median else total
