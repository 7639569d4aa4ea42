"""Metrics for Prometheus. No label names a series, since there may be a million."""

import copy
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_FAST = (0.0005, 0.001, 0.0025, *_SECONDS)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Metrics:
    """
    The metrics of one application, in a registry of its own.

    Metrics of one model have the label `model`, the name under which it is served.
    """

    def __init__(self) -> None:
        self.model = "default"
        """Value of the label `model`."""
        self._in_service: tuple[str, ...] | None = None
        r = self.registry = CollectorRegistry()
        app, model = "statecast", ("model", "version")
        self.requests = Counter(
            "http_requests_total",
            "HTTP requests by route template and status.",
            ("model", "method", "handler", "status"),
            registry=r,
        )
        self.request_seconds = Histogram(
            "http_request_duration_seconds",
            "Time to answer by route template.",
            ("model", "method", "handler"),
            buckets=_SECONDS,
            registry=r,
        )
        self.inferences = Counter(
            "inference_requests_total",
            "Forecast requests.",
            (*model, "outcome"),
            namespace=app,
            registry=r,
        )
        self.failures = Counter(
            "inference_failures_total",
            "Forecast requests that failed.",
            ("model", "reason"),
            namespace=app,
            registry=r,
        )
        self.inference_series = Counter(
            "inference_series_total", "Series forecast.", model, namespace=app, registry=r
        )
        self.batches = Counter(
            "inference_batches_total",
            "Calls of the network to forecast.",
            model,
            namespace=app,
            registry=r,
        )
        self.batch_size = Histogram(
            "batch_size",
            "Series in one call of the network.",
            ("model",),
            buckets=_SIZES,
            namespace=app,
            registry=r,
        )
        self.queue_seconds = Histogram(
            "queue_duration_seconds",
            "Wait for the compute thread.",
            buckets=_FAST,
            namespace=app,
            registry=r,
        )
        self.compute_seconds = Histogram(
            "compute_duration_seconds",
            "Work on the compute thread.",
            buckets=_FAST,
            namespace=app,
            registry=r,
        )
        self.pending = Gauge(
            "pending_requests",
            "Jobs waiting for or on the compute thread.",
            namespace=app,
            registry=r,
        )
        self.model_info = Gauge(
            "model_info",
            "1 for the model in service.",
            (*model, "name", "alias", "digest"),
            namespace=app,
            registry=r,
        )
        self.successions = Counter(
            "model_successions_total",
            "New models by outcome of their rollout.",
            ("model", "outcome"),
            namespace=app,
            registry=r,
        )
        self.live_series = Gauge(
            "series", "Series with a live state.", ("model",), namespace=app, registry=r
        )
        self.observations = Counter(
            "observations_total",
            "Observations by status: new, duplicate, revised.",
            ("model", "status"),
            namespace=app,
            registry=r,
        )
        self.rebuilds = Counter(
            "state_rebuilds_total",
            "States replayed from the log.",
            ("model", "reason"),
            namespace=app,
            registry=r,
        )

    def of(self, model: str) -> Self:
        """Return the same metrics with the label of another model."""
        other = copy.copy(self)
        other.model = model
        return other

    def in_service(self, version: str, name: str, alias: str, digest: str) -> None:
        """Set the model in service in place of the one before it."""
        labels = (self.model, version, name, alias, digest)
        if self._in_service not in (None, labels):
            self.model_info.remove(*self._in_service)
        self._in_service = labels
        self.model_info.labels(*labels).set(1)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
