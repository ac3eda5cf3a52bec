"""Drift detectors beside each other: how often they cry wolf, and how often they see what is there.

    python -m benchmarks.drift run fairway --out results.jsonl
    /tmp/peers/evidently/bin/python -m benchmarks.drift run evidently --out results.jsonl
    python -m benchmarks.drift report results.jsonl

Every tool judges the same windows with its defaults, in an environment of its own; only numpy and pandas are shared.
"""
