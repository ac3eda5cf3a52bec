"""What operators ask the data port: metrics."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from fairway.serving.entrance import Call, Entry, Reply, Service


@cache
def _pages() -> Any:
    """By name: prometheus_client takes a twentieth of a server's start to import, and nobody has asked yet."""
    return import_module("fairway.serving.metrics")


async def metrics_page(service: Service, call: Call) -> Reply:
    text = _pages().page(service.plane.counters, service.counters_directory)
    return Reply(200, text, [(b"content-type", _pages().CONTENT_TYPE)])


ENTRIES = (Entry("GET", "/metrics", "metrics", handler=metrics_page),)
