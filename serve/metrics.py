"""Prometheus metrics. Labels are routes, statuses, models and versions, never data of clients or patients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from octc.core.optional import need

if TYPE_CHECKING:
    from octc.serve.models import Opened
    from octc.serve.pool import Pool, Ran

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32)
MODEL = ("model", "version")  # several versions of one name may be served at once


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        library = need("prometheus_client")
        self._library = library
        self.registry: Any = library.CollectorRegistry()
        labels = ("protocol", "route", "status")
        self._requests = library.Counter("octc_requests", "Requests that ended", labels, registry=self.registry)
        self._seconds = library.Histogram(
            "octc_request_seconds", "Seconds of a request", labels[:2], buckets=SECONDS, registry=self.registry
        )
        self._running = library.Gauge("octc_requests_running", "Requests that run", labels[:1], registry=self.registry)
        self._images = library.Counter("octc_images", "Images that an engine answered", MODEL, registry=self.registry)
        self._batch = library.Histogram(
            "octc_batch_images", "Images of one call of an engine", MODEL, buckets=SIZES, registry=self.registry
        )
        self._engine = library.Histogram(
            "octc_engine_seconds", "Seconds of one call of an engine", MODEL, buckets=SECONDS, registry=self.registry
        )
        self._waited = library.Histogram(
            "octc_wait_seconds", "Longest wait for an engine in a call", MODEL, buckets=SECONDS, registry=self.registry
        )
        self._reloads = library.Counter(
            "octc_reloads", "Times that artifacts were read again", ("result",), registry=self.registry
        )

    def watch(self, pool: Pool, models: Callable[[], Iterable[Opened]]) -> None:
        """Add the number of waiting images, and the served models with versions."""
        waiting = self._library.Gauge("octc_images_waiting", "Images that wait for an engine", registry=self.registry)
        waiting.set_function(lambda: pool.waiting)
        family = self._library.metrics_core.GaugeMetricFamily

        class Served:
            def collect(self) -> Iterable[Any]:
                found = family("octc_model", "Models that are served", labels=MODEL)
                for one in models():
                    found.add_metric((one.name, one.version), 1)
                yield found

        self.registry.register(Served())

    def count_faults(self, faults: Callable[[], int]) -> None:
        """Add the number of faults beside the artifacts, for example a watched folder that is gone."""
        gauge = self._library.Gauge("octc_faults", "Faults beside the artifacts that there are now", registry=self.registry)
        gauge.set_function(faults)

    def started(self, protocol: str) -> None:
        self._running.labels(protocol).inc()

    def ended(self, protocol: str, route: str, status: str, seconds: float) -> None:
        """Count a finished request. route: from the table of routes, never a path from a client."""
        self._running.labels(protocol).dec()
        self._requests.labels(protocol, route, status).inc()
        self._seconds.labels(protocol, route).observe(seconds)

    def ran(self, one: Ran) -> None:
        """Count a call of an engine."""
        labels = (one.model, one.version)
        self._images.labels(*labels).inc(one.images)
        self._batch.labels(*labels).observe(one.images)
        self._engine.labels(*labels).observe(one.seconds)
        self._waited.labels(*labels).observe(one.waited)

    def reloaded(self, result: str) -> None:
        self._reloads.labels(result).inc()

    def text(self) -> bytes:
        """The text for /metrics."""
        found: bytes = self._library.generate_latest(self.registry)
        return found
