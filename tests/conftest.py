"""Fixtures for the whole suite."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
"""How long a busy machine takes says nothing about the code."""

os.environ.setdefault("FAIRWAY_CONTROL_ENABLED", "false")
"""`fairway serve` starts no control process, but in the tests that are about it."""

os.environ.setdefault("FAIRWAY_CONTROL_NICE", "0")
"""Where it does, it need not wait for the rest of the suite."""

pytest_plugins = ["tests.services"]
