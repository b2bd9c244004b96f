"""What a server counts, for Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Monitoring:
    """The metrics of one server; a registry of its own, so that several may run in a process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            'vit_jax_requests', 'Requests answered.', ['path', 'status'], registry=registry
        )
        self.seconds = Histogram(
            'vit_jax_request_seconds',
            'From the head of POST /predict to its answer.',
            buckets=SECONDS,
            registry=registry,
        )
        self.pictures = Counter(
            'vit_jax_pictures', 'Pictures classified or found bad.', ['result'], registry=registry
        )
        self.waiting = Gauge(
            'vit_jax_waiting_pictures', 'Pictures admitted and not yet answered.', registry=registry
        )
        self.batch_pictures = Histogram(
            'vit_jax_batch_pictures', 'Pictures in a batch.', buckets=BATCH_SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            'vit_jax_batch_seconds', 'Time of a batch.', buckets=SECONDS, registry=registry
        )

    def on_batch(self, size: int, seconds: float) -> None:
        """See `vit_jax.use.serving.batching.Batcher`."""
        self.batch_pictures.observe(size)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self.registry)
