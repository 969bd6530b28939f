"""What the server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one server, all named ``mrcnn_jax_...``, and those of its process, ``process_...``."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "mrcnn_jax_requests", "Requests answered", ["path", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "mrcnn_jax_request_seconds",
            "Time from a request's first line to the end of its answer, for /predict with status 200",
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter("mrcnn_jax_images", "Images answered", registry=registry)
        self.objects = Counter("mrcnn_jax_objects", "Objects in the answers", registry=registry)
        self.waiting = Gauge("mrcnn_jax_images_waiting", "Images that wait for a batch", registry=registry)
        self.batch_images = Histogram(
            "mrcnn_jax_batch_images",
            "Images in a batch, without blank ones",
            buckets=_IMAGES,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "mrcnn_jax_batch_seconds",
            "Time of a batch, from reading its images to pasting its masks",
            buckets=_SECONDS,
            registry=registry,
        )
        self.ready = Gauge("mrcnn_jax_ready", "Whether the model is compiled", registry=registry)
