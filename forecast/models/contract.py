"""The contract that single networks and ensembles fulfil: state in, state out, pure heads."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from forecast.models.point_head import Future
from forecast.models.quantile_head import Quantiles
from forecast.models.recurrent import State


@runtime_checkable
class ForecastNetwork(Protocol):
    """
    A network that encodes steps and forecasts all horizons.

    `encode` and `observe` take a state and return the next one. All other methods are pure
    functions of their arguments and the weights.
    """

    def initial_state(self, num_lanes: int) -> State:
        """Return the state of lanes that have seen nothing."""
        ...

    def encode(
        self,
        features: Float[Tensor, "lane step feature"],
        static: Float[Tensor, "lane static"],
        state: State,
    ) -> tuple[Float[Tensor, "lane step memory"], State]:
        """Encode steps in order; return the memory that the heads read at each, and the state."""
        ...

    def observe(
        self,
        features: Float[Tensor, "lane step feature"],
        static: Float[Tensor, "lane static"],
        state: State,
    ) -> tuple[Float[Tensor, "lane seen"], State]:
        """Encode steps as `encode`, but return only what `memory_at_end` needs of the last one."""
        ...

    def memory_at_end(
        self, state: State, seen: Float[Tensor, "lane seen"]
    ) -> Float[Tensor, "lane memory"]:
        """Return the memory at the last step, from the state after it and what `observe` saw."""
        ...

    def embed_future(self, dates: Float[Tensor, "*step date"]) -> Float[Tensor, "*step seen"]:
        """Embed covariates and calendar of target steps as the point head reads them."""
        ...

    def scale(self, distance: Float[Tensor, "*step amount"]) -> Float[Tensor, "*step amount"]:
        """Scale distances of amounts from their running means as the point head reads them."""
        ...

    def point(
        self,
        memory: Float[Tensor, "*origin memory"],
        skips: Float[Tensor, "*origin skip horizon"],
        future: Future,
    ) -> Float[Tensor, "*origin horizon"]:
        """Return the relative point forecast of each horizon."""
        ...

    def quantiles(
        self,
        memory: Float[Tensor, "*origin memory"],
        point: Float[Tensor, "*origin horizon"],
        nearest: int | None = None,
    ) -> Quantiles:
        """Return the median and the distances of the quantiles from it."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Switch to training mode, as `torch.nn.Module.train`."""
        ...

    def eval(self) -> Any:
        """Switch to evaluation mode, as `torch.nn.Module.eval`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the weights by name, as `torch.nn.Module.state_dict`."""
        ...
