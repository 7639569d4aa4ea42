"""The whole network of a forecaster: read features, remember, forecast all horizons."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from forecast.config import ModelConfig
from forecast.models.heads import PointHead, QuantileHead
from forecast.models.recurrent import RecurrentStack, State


class Network(nn.Module):
    """
    Weights only: `remember` takes the state and returns the next one, `heads` is a pure function.

    Args:
        config: Its horizon is set.
        num_features: Width of the inputs of a step: filters, covariates, calendar, static.
        num_seasons: Seasons of the filters.
        num_future: Width of what is known of a target step beforehand.
    """

    def __init__(
        self, config: ModelConfig, *, num_features: int, num_seasons: int, num_future: int
    ) -> None:
        super().__init__()
        assert config.horizon is not None
        hidden, memory = config.hidden_size, 2 * config.hidden_size
        upper = tuple(q for q in config.quantiles if q > 0.5)
        self.register_buffer("input_mean", torch.zeros(num_features))
        self.register_buffer("input_scale", torch.ones(num_features))
        self.register_buffer("future_mean", torch.zeros(num_future))
        self.register_buffer("future_scale", torch.ones(num_future))
        self.input_mean: Tensor
        self.input_scale: Tensor
        self.future_mean: Tensor
        self.future_scale: Tensor
        self.embed = nn.Linear(num_features, hidden)
        self.stack = RecurrentStack(config.cell, hidden, hidden, config.num_layers, config.dropout)
        self.point = PointHead(memory, hidden, config.horizon, num_seasons, num_future)
        self.quantiles = QuantileHead(memory, hidden, config.horizon, upper)

    def remember(
        self, features: Float[Tensor, "lane step feature"], state: State
    ) -> tuple[Float[Tensor, "lane step memory"], State]:
        """Read the steps in order; the memory of a step is what the heads may use at it."""
        scaled = ((features - self.input_mean) / self.input_scale).clamp(-6, 6)
        seen = functional.silu(self.embed(scaled))
        outputs, state = self.stack(seen, state)
        return torch.cat([outputs, seen], dim=-1), state

    def scale_future(
        self, future: Float[Tensor, "*origin horizon future"]
    ) -> Float[Tensor, "*origin horizon future"]:
        """Covariates of the target steps as the head takes them."""
        return ((future - self.future_mean) / self.future_scale).clamp(-6, 6)
