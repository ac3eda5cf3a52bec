"""Fixtures for the whole suite."""

import os

os.environ.setdefault("FAIRWAY_CONTROL_ENABLED", "false")
"""`fairway serve` starts no control process, but in the tests that are about it."""

pytest_plugins = ["tests.services"]
