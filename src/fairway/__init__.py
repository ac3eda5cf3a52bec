"""Fairway: the safe channel from a trained model to production."""

__version__ = "0.1.0"
