"""The training losses, compared with their definitions."""

import torch

from forecast.training.losses import pinball

UPPER = (0.6, 0.9, 0.975)


def by_definition(median, target, distances):
    """Return `max(q e, (q - 1) e)` summed over all quantiles, divided by the number of pairs."""
    losses = []
    for i, q in enumerate(UPPER):
        for level, quantile in (
            (1 - q, median - distances[:, 0, :, i]),
            (q, median + distances[:, 1, :, i]),
        ):
            error = target - quantile
            losses.append(torch.maximum(level * error, (level - 1) * error))
    return torch.stack(losses).sum(0) / len(UPPER)


def test_pinball_and_its_gradient_are_those_of_the_definition():
    """The gradients of the distances and of the median agree too."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn((40, 6), generator=generator)
    results = []
    for loss in (
        lambda m, d: pinball(target - m, d, UPPER, with_median=False),
        lambda m, d: by_definition(m, target, d),
    ):
        median = torch.zeros((40, 6), requires_grad=True)
        steps = torch.rand((40, 2, 6, 3), generator=torch.Generator().manual_seed(1))
        distances = steps.cumsum(-1).requires_grad_()
        value = loss(median, distances)
        value.sum().backward()
        results.append((value.detach(), median.grad, distances.grad))

    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def test_the_median_adds_its_own_loss():
    """It is half the absolute error, the pinball loss at one half."""
    residual = torch.tensor([[3.0, -1.0]])
    distances = torch.zeros((1, 2, 2, 3))

    with_median = pinball(residual, distances, UPPER, with_median=True)
    without_median = pinball(residual, distances, UPPER, with_median=False)

    torch.testing.assert_close(with_median - without_median, 0.5 * residual.abs())
