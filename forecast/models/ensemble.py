"""
Networks from different seeds as one: one state, one call, the mean of their forecasts.

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
    Reads, remembers and forecasts as a `Network` does.

    The members' states lie one behind another along the layers, their memories along the width.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def _networks(self) -> list[Network]:
        return [member for member in self.members if isinstance(member, Network)]

    def initial_state(self, num_lanes: int) -> State:
        """The state of lanes that have seen nothing."""
        return _joined([network.initial_state(num_lanes) for network in self._networks()])

    def _parted(self, state: State) -> list[tuple[Network, State]]:
        """Each member with its own part of a state."""
        networks = self._networks()
        parts = state.hidden.chunk(len(networks)), state.cell.chunk(len(networks))
        return [(network, State(h, c)) for network, h, c in zip(networks, *parts, strict=True)]

    def encode(
        self,
        features: Float[Tensor, "lane step feature"],
        static: Float[Tensor, "lane static"],
        state: State,
    ) -> tuple[Float[Tensor, "lane step memory"], State]:
        """Every member reads the same steps."""
        return _beside([n.encode(features, static, own) for n, own in self._parted(state)])

    def observe(
        self,
        features: Float[Tensor, "lane step feature"],
        static: Float[Tensor, "lane static"],
        state: State,
    ) -> tuple[Float[Tensor, "lane seen"], State]:
        """Every member reads the same steps; what each saw last lies side by side."""
        return _beside([n.observe(features, static, own) for n, own in self._parted(state)])

    def memory_at_end(
        self, state: State, seen: Float[Tensor, "lane seen"]
    ) -> Float[Tensor, "lane memory"]:
        """The memory of the last step, from the state after it and what was read at it."""
        members = self._parted(state)
        parts = seen.chunk(len(members), dim=-1)
        made = [n.memory_at_end(own, part) for (n, own), part in zip(members, parts, strict=True)]
        return torch.cat(made, dim=-1)

    def embed_future(self, dates: Float[Tensor, "*step date"]) -> Float[Tensor, "*step seen"]:
        """What each member sees of each step, side by side."""
        return torch.cat([network.embed_future(dates) for network in self._networks()], dim=-1)

    def scale(self, distance: Float[Tensor, "*step amount"]) -> Float[Tensor, "*step amount"]:
        """All members learned from the same data and scale it alike."""
        return self._networks()[0].scale(distance)

    def point(
        self,
        memory: Float[Tensor, "*origin memory"],
        skips: Float[Tensor, "*origin skip horizon"],
        future: Future,
    ) -> Float[Tensor, "*origin horizon"]:
        """The mean of the members' relative point forecasts."""
        networks = self._networks()
        parts = memory.chunk(len(networks), dim=-1)
        dates = future.dates.chunk(len(networks), dim=-1)
        made = [
            network.point(part, skips, future._replace(dates=date))
            for network, part, date in zip(networks, parts, dates, strict=True)
        ]
        return torch.stack(made).mean(0)

    def quantiles(
        self,
        memory: Float[Tensor, "*origin memory"],
        point: Float[Tensor, "*origin horizon"],
        nearest: int | None = None,
    ) -> Quantiles:
        """The mean of the members' medians and distances."""
        networks = self._networks()
        parts = memory.chunk(len(networks), dim=-1)
        made = [n.quantiles(part, point, nearest) for n, part in zip(networks, parts, strict=True)]
        return Quantiles(
            torch.stack([q.median for q in made]).mean(0),
            torch.stack([q.distances for q in made]).mean(0),
        )


def _joined(states: Sequence[State]) -> State:
    """The members' states as one."""
    return State(torch.cat([s.hidden for s in states]), torch.cat([s.cell for s in states]))


def _beside(
    made: Sequence[tuple[Float[Tensor, "*step part"], State]],
) -> tuple[Float[Tensor, "*step whole"], State]:
    """What each member gave, side by side, and their states as one."""
    return torch.cat([output for output, _ in made], dim=-1), _joined([own for _, own in made])
