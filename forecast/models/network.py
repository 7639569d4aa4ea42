"""The network of a forecaster: embed features, run the recurrent layers, forecast all horizons."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from forecast.features.filter_spec import FilterSpec
from forecast.features.inputs import InputSpec
from forecast.models.point_head import PointHead
from forecast.models.quantile_head import QuantileHead
from forecast.models.recurrent import RecurrentStack, State
from forecast.models.windowed import WindowedStack
from forecast.resolved_config import ResolvedConfig, ResolvedModelConfig


class StaticEmbedding(nn.Module):
    """
    The sum of a vector for each category and a direction for each number.

    Weights start at zero and code 0 stays zero, so an unknown or hidden value adds nothing.
    """

    def __init__(self, sizes: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        self.tables = nn.ModuleDict(
            {str(i): nn.Embedding(n + 1, hidden, padding_idx=0) for i, n in enumerate(sizes) if n}
        )
        self.numeric = [i for i, n in enumerate(sizes) if not n]
        self.linear = nn.Linear(len(self.numeric), hidden, bias=False) if self.numeric else None
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def forward(self, static: Float[Tensor, "lane static"]) -> Float[Tensor, "lane hidden"]:
        """Embed the output of `StaticSpec.encode`."""
        parts = [table(static[:, int(i)].long()) for i, table in self.tables.items()]
        if self.linear is not None:
            parts.append(self.linear(static[:, self.numeric]))
        return torch.stack(parts).sum(0)


class Network(nn.Module):
    """
    A single network that fulfils the contract of `ForecastNetwork`.

    Args:
        config: Shape of the network.
        filters: The causal filters.
        num_features: Width of the features of a step: filters, covariates, calendar.
        num_dates: Width of what is known of a target step: covariates, calendar.
        static_sizes: Number of categories of each static column, 0 for a numeric one.
        mean: Whether the point forecast is a mean, so that the median is learned separately.
    """

    def __init__(
        self,
        config: ResolvedModelConfig,
        filters: FilterSpec,
        *,
        num_features: int,
        num_dates: int,
        static_sizes: tuple[int, ...] = (),
        mean: bool = False,
    ) -> None:
        super().__init__()
        hidden, memory = config.hidden_size, 2 * config.hidden_size
        upper = tuple(q for q in config.quantiles if q > 0.5)
        self.register_buffer("input_mean", torch.zeros(num_features))
        self.register_buffer("input_scale", torch.ones(num_features))
        self.register_buffer("date_mean", torch.zeros(num_dates))
        self.register_buffer("date_scale", torch.ones(num_dates))
        self.register_buffer("distance_scale", torch.ones(len(filters.known_amounts)))
        self.input_mean: Tensor
        self.input_scale: Tensor
        self.date_mean: Tensor
        self.date_scale: Tensor
        self.distance_scale: Tensor
        self.embed = nn.Linear(num_features, hidden)
        self.static = StaticEmbedding(static_sizes, hidden) if static_sizes else None
        self.stack: RecurrentStack | WindowedStack = (
            RecurrentStack(config.cell, hidden, hidden, config.num_layers, config.dropout)
            if config.window is None
            else WindowedStack(
                config.cell,
                hidden,
                config.num_layers,
                config.dropout,
                config.window,
                bidirectional=config.bidirectional,
            )
        )
        self.point = PointHead(filters, memory, hidden, config.horizon, num_dates)
        self.quantiles = QuantileHead(filters, memory, hidden, config.horizon, upper, shifted=mean)

    def initial_state(self, num_lanes: int) -> State:
        """Return the state of lanes that have seen nothing."""
        return self.stack.initial_state(num_lanes)

    def embed_steps(
        self, features: Float[Tensor, "lane step feature"], static: Float[Tensor, "lane static"]
    ) -> Float[Tensor, "lane step hidden"]:
        """Scale and embed the features of steps for the recurrent layers."""
        scaled = ((features - self.input_mean) / self.input_scale).clamp(-6, 6)
        inputs = self.embed(scaled)
        if self.static is not None:
            inputs = inputs + self.static(static)[:, None]
        return functional.silu(inputs)

    def encode(
        self,
        features: Float[Tensor, "lane step feature"],
        static: Float[Tensor, "lane static"],
        state: State,
    ) -> tuple[Float[Tensor, "lane step memory"], State]:
        """Encode steps in order; return the memory that the heads read at each, and the state."""
        seen = self.embed_steps(features, static)
        outputs, state = self.stack(seen, state)
        return torch.cat([outputs, seen], dim=-1), state

    def observe(
        self,
        features: Float[Tensor, "lane step feature"],
        static: Float[Tensor, "lane static"],
        state: State,
    ) -> tuple[Float[Tensor, "lane seen"], State]:
        """Encode steps as `encode`, but return only what `memory_at_end` needs of the last one."""
        seen = self.embed_steps(features, static)
        _, state = self.stack(seen, state)
        return seen[:, -1], state

    def memory_at_end(
        self, state: State, seen: Float[Tensor, "lane seen"]
    ) -> Float[Tensor, "lane memory"]:
        """Return the memory at the last step, from the state after it and what `observe` saw."""
        if isinstance(self.stack, RecurrentStack):
            return torch.cat([state.hidden[-1], seen], dim=-1)
        # The last step is read again, from the window before it.
        before = State(state.hidden.roll(1, 0), state.cell)
        outputs, _ = self.stack(seen[:, None], before)
        return torch.cat([outputs[:, 0], seen], dim=-1)

    def embed_future(self, dates: Float[Tensor, "*step date"]) -> Float[Tensor, "*step seen"]:
        """Embed covariates and calendar of target steps as the point head reads them."""
        return self.point.embed_future(((dates - self.date_mean) / self.date_scale).clamp(-6, 6))

    def scale(self, distance: Float[Tensor, "*step amount"]) -> Float[Tensor, "*step amount"]:
        """Scale distances of amounts from their running means as the point head reads them."""
        return (distance / self.distance_scale).clamp(-6, 6)


def make_network(config: ResolvedConfig, spec: InputSpec) -> Network:
    """Return a network with new weights, drawn from torch's generator."""
    return Network(
        config.model,
        spec.filters,
        num_features=spec.num_features,
        num_dates=spec.num_dates,
        static_sizes=spec.static.sizes,
        mean=config.data.kind in ("count", "volatility"),
    )
