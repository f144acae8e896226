"""Connections leave descriptors for what a replica cannot do without."""

from __future__ import annotations

import resource

import pytest

from bft.runtime.limits import FILES_OWN, FILES_PER_REPLICA, PLACES_MIN, ServerLimits, fitted

REPLICAS = 4
OWN = FILES_OWN + FILES_PER_REPLICA * REPLICAS


class Process:
    """How many files it may open."""

    def __init__(self, soft: int, hard: int) -> None:
        self.limits = soft, hard

    def get(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.limits

    def set(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        self.limits = limits


def _fitted(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> tuple[ServerLimits, Process]:
    process = Process(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", process.get)
    monkeypatch.setattr(resource, "setrlimit", process.set)
    return fitted(ServerLimits(), REPLICAS), process


def test_usual_limit_is_left_alone(monkeypatch):
    """What most systems allow is enough for the defaults."""
    limits, process = _fitted(monkeypatch, 1024, 1024)
    assert limits == ServerLimits()
    assert process.limits == (1024, 1024)


def test_process_takes_what_it_may(monkeypatch):
    """A low soft limit is raised to what is needed, and no further."""
    limits, process = _fitted(monkeypatch, 100, resource.RLIM_INFINITY)
    assert limits == ServerLimits()
    assert process.limits == (OWN + limits.strangers_max + limits.links.clients_max, resource.RLIM_INFINITY)


def test_connections_leave_room_for_the_store(monkeypatch):
    """Where no more may be open there are fewer places: a full house leaves the replica's own descriptors free."""
    limits, process = _fitted(monkeypatch, 100, 256)
    assert process.limits == (256, 256)
    assert limits.strangers_max + limits.links.clients_max + OWN <= 256
    assert PLACES_MIN < limits.strangers_max < limits.links.clients_max


def test_some_places_are_always_left(monkeypatch):
    """However few: a replica that lets nobody in would be of no use."""
    limits, _ = _fitted(monkeypatch, 32, 32)
    assert (limits.strangers_max, limits.links.clients_max) == (PLACES_MIN, PLACES_MIN)
