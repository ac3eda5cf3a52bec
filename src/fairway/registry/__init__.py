"""Versions, aliases, routes and their history.

`registry.py` is the way in; `snapshot.py` is what a server starts from without opening the registry.
"""
