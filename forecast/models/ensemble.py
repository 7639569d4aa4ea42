"""
An ensemble of networks from different seeds: one state, one call, the mean of the forecasts.

References:
    Lakshminarayanan, Pritzel & Blundell, Simple and scalable predictive uncertainty estimation
    using deep ensembles, NeurIPS 2017.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from forecast.models.network import Network
from forecast.models.point_head import Future
from forecast.models.quantile_head import Quantiles
from forecast.models.recurrent import State


class Ensemble(nn.Module):
    """
    An ensemble that fulfils the contract of `ForecastNetwork`.

    States of the members are concatenated along the layers, their memories along the width.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def _networks(self) -> list[Network]:
        return [member for member in self.members if isinstance(member, Network)]

    def initial_state(self, num_lanes: int) -> State:
        """Return the state of lanes that have seen nothing."""
        return _join_states([network.initial_state(num_lanes) for network in self._networks()])

    def _split_state(self, state: State) -> list[tuple[Network, State]]:
        """Return each member with its part of a state."""
        networks = self._networks()
        parts = state.hidden.chunk(len(networks)), state.cell.chunk(len(networks))
        return [(network, State(h, c)) for network, h, c in zip(networks, *parts, strict=True)]

    def encode(
        self,
        features: Float[Tensor, "lane step feature"],
        static: Float[Tensor, "lane static"],
        state: State,
    ) -> tuple[Float[Tensor, "lane step memory"], State]:
        """Encode the steps with every member; memories are concatenated."""
        members = self._split_state(state)
        return _join_outputs([network.encode(features, static, own) for network, own in members])

    def observe(
        self,
        features: Float[Tensor, "lane step feature"],
        static: Float[Tensor, "lane static"],
        state: State,
    ) -> tuple[Float[Tensor, "lane seen"], State]:
        """Observe the steps with every member; what each saw last is concatenated."""
        members = self._split_state(state)
        return _join_outputs([network.observe(features, static, own) for network, own in members])

    def memory_at_end(
        self, state: State, seen: Float[Tensor, "lane seen"]
    ) -> Float[Tensor, "lane memory"]:
        """Return the memory at the last step, from the state after it and what `observe` saw."""
        members = self._split_state(state)
        parts = seen.chunk(len(members), dim=-1)
        memories = [
            network.memory_at_end(own, part)
            for (network, own), part in zip(members, parts, strict=True)
        ]
        return torch.cat(memories, dim=-1)

    def embed_future(self, dates: Float[Tensor, "*step date"]) -> Float[Tensor, "*step seen"]:
        """Embed target steps with every member; embeddings are concatenated."""
        return torch.cat([network.embed_future(dates) for network in self._networks()], dim=-1)

    def scale(self, distance: Float[Tensor, "*step amount"]) -> Float[Tensor, "*step amount"]:
        """Scale distances; all members were trained on the same data and scale alike."""
        return self._networks()[0].scale(distance)

    def point(
        self,
        memory: Float[Tensor, "*origin memory"],
        skips: Float[Tensor, "*origin skip horizon"],
        future: Future,
    ) -> Float[Tensor, "*origin horizon"]:
        """Return the mean of the members' relative point forecasts."""
        networks = self._networks()
        parts = memory.chunk(len(networks), dim=-1)
        dates = future.dates.chunk(len(networks), dim=-1)
        forecasts = [
            network.point(part, skips, future._replace(dates=date))
            for network, part, date in zip(networks, parts, dates, strict=True)
        ]
        return torch.stack(forecasts).mean(0)

    def quantiles(
        self,
        memory: Float[Tensor, "*origin memory"],
        point: Float[Tensor, "*origin horizon"],
        nearest: int | None = None,
    ) -> Quantiles:
        """Return the mean of the members' medians and distances."""
        networks = self._networks()
        parts = memory.chunk(len(networks), dim=-1)
        forecasts = [
            network.quantiles(part, point, nearest)
            for network, part in zip(networks, parts, strict=True)
        ]
        return Quantiles(
            torch.stack([q.median for q in forecasts]).mean(0),
            torch.stack([q.distances for q in forecasts]).mean(0),
        )


def _join_states(states: Sequence[State]) -> State:
    """Concatenate the states of the members."""
    return State(torch.cat([s.hidden for s in states]), torch.cat([s.cell for s in states]))


def _join_outputs(
    outputs: Sequence[tuple[Float[Tensor, "*step part"], State]],
) -> tuple[Float[Tensor, "*step whole"], State]:
    """Concatenate the outputs and the states of the members."""
    joined = torch.cat([output for output, _ in outputs], dim=-1)
    return joined, _join_states([own for _, own in outputs])
