"""What operators ask the data port: metrics."""

from __future__ import annotations

from fairway.serving import metrics
from fairway.serving.entrance import Call, Entry, Reply, Service


async def metrics_page(service: Service, call: Call) -> Reply:
    text = metrics.page(service.plane.counters, service.counters_directory)
    return Reply(200, text, [(b"content-type", metrics.CONTENT_TYPE)])


ENTRIES = (Entry("GET", "/metrics", "metrics", handler=metrics_page),)
