"""The only place for disk, SQL and object stores: `base.py` has the ports, one file per backend below it.

Nothing here is imported by importing this package: SQLAlchemy alone takes longer than a server needs to start.
"""
