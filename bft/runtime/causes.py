"""What to show when a replica ends with an exception."""

from __future__ import annotations

from bft.errors import BFTError


def cause_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception that people should see: a bug before a failure of the environment before anything else."""
    for kind in (AssertionError, BFTError):
        matching = group.subgroup(kind)
        while matching is not None:
            first = matching.exceptions[0]
            if not isinstance(first, BaseExceptionGroup):
                return first
            matching = first
    return group
