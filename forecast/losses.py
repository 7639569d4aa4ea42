"""Losses in torch, masked: a target that is not there costs nothing."""

import torch
from jaxtyping import Bool, Float
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


def pinball(
    residual: Float[Tensor, "origin horizon"],
    distances: Float[Tensor, "origin two horizon upper"],
    upper: Float[Tensor, " upper"],
) -> Float[Tensor, "*target"]:
    """
    Mean quantile loss over the quantiles below and above the median.

    Args:
        residual: Target minus median.
        distances: Of each quantile from the median, positive: [0] below, [1] above.
        upper: The quantiles above the median; those below mirror them.

    References:
        Koenker & Bassett, Regression quantiles, Econometrica 46(1), 1978.
    """
    above = residual[..., None] - distances[..., 1, :, :]
    below = residual[..., None] + distances[..., 0, :, :]
    loss = torch.maximum(upper * above, (upper - 1) * above)
    loss = loss + torch.maximum((1 - upper) * below, -upper * below)
    return loss.mean(-1)
