"""What every store behind an fsspec URL needs: its errors by meaning, and its address without secrets."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from fairway.core.errors import FairwayError, StorageFull, Unavailable

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
"""Protocols that show an object only when its upload is complete."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def shown_url(url: str) -> str:
    """For messages: without the user and password that it may hold."""
    return url.rsplit("@", maxsplit=1)[-1]


@contextmanager
def remote_errors(
    what: str, where: str, setting: str, *, meaning: type[Unavailable] = Unavailable
) -> Iterator[None]:
    """Turns what the block raises into StorageFull, or into an error of `meaning`, that says what failed, where, and
    which `setting` names the place."""
    try:
        yield
    except FairwayError:
        raise
    except Exception as error:  # every fsspec backend raises a family of its own
        if isinstance(error, OSError) and error.errno in _FULL:
            raise StorageFull(f"No room left to {what} at {where}.", hint="Free some space there.") from error
        raise meaning(
            f"Could not {what} at {where}: {str(error) or type(error).__name__}.",
            hint=f"Check that the store is up, that {setting} is right and that this user may write there.",
        ) from error
