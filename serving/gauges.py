"""Figures of a service in Prometheus's text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Gauges:
    """Counters of one ingress, from its start on."""

    kind = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "avmend_requests", "requests by HTTP status and cause", ("status", "cause"), registry=registry
        )
        self.seconds = Histogram(
            "avmend_request_seconds", "from the first byte to the answer", registry=registry, buckets=SECONDS
        )
        self.bytes = Counter("avmend_upload_bytes", "bytes of clips that were read", registry=registry)
        self.running = Gauge("avmend_requests_running", "requests that are read or answered now", registry=registry)
        self.retries = Counter(
            "avmend_retries", "requests that were asked again: their replica died", registry=registry
        )

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
