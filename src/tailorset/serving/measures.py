"""Measures of the service, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from tailorset.inference.predictor import Predictor

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Measures:
    """Counters of one service, in their own registry, so that several services can share a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("tailorset_requests", "Requests answered", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "tailorset_request_seconds",
            "Time to the end of the answer",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "tailorset_requests_in_flight", "Requests let in and not answered", registry=self.registry
        )
        self.batches = Histogram(
            "tailorset_batch_images", "Images computed together", buckets=IMAGES, registry=self.registry
        )
        self.decisions = Counter(
            "tailorset_decisions", "Decisions on photos", ["label", "decision"], registry=self.registry
        )
        self.photos = Counter("tailorset_photos", "Photos answered", registry=self.registry)
        self.undecided = Counter(
            "tailorset_photos_undecided", "Of these, with a label left open", registry=self.registry
        )
        self.unfamiliar = Counter(
            "tailorset_photos_unfamiliar", "Of these, unlike those of training", registry=self.registry
        )
        self.loads = Counter("tailorset_model_loads", "Models loaded", ["model", "version"], registry=self.registry)

    def loaded(self, predictor: Predictor) -> None:
        self.loads.labels(predictor.origin.uri, predictor.origin.version or "").inc()

    def decided(self, decisions: Mapping[str, str], unfamiliar: bool | None) -> None:
        """Count the decisions on one photo, by label."""
        for label, decision in decisions.items():
            self.decisions.labels(label, decision).inc()
        self.photos.inc()
        self.undecided.inc("open" in decisions.values())
        self.unfamiliar.inc(bool(unfamiliar))

    def watch_queue(self, num_waiting: Callable[[], float]) -> None:
        gauge = Gauge("tailorset_waiting_images", "Images waiting to be computed", registry=self.registry)
        gauge.set_function(num_waiting)

    def text(self) -> bytes:
        return generate_latest(self.registry)
