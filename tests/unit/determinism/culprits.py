"""Services that are not deterministic, one for each way to be that, and some that only look like it."""

from __future__ import annotations

import datetime
import os
import random
import time
from datetime import datetime as imported_datetime
from time import time as imported_time

import bft

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank")
_calls = 0


class SetOrder(bft.Service):
    """Returns the members of a set of text in the order of iteration."""

    def __init__(self) -> None:
        self.count = 0

    @bft.command
    def members(self, more: str) -> list[str]:
        """A list made from a set."""
        self.count += 1
        return list({*NAMES, more})


class DictFromSet(bft.Service):
    """Fills a dict from a set and lists its keys: the state is alike, since text keys are encoded sorted; the result
    is not."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    @bft.command
    def keys(self, more: str) -> str:
        """The keys in order."""
        self.seen = dict.fromkeys({*NAMES, more}, 1)
        return " ".join(self.seen)


class NumberedFromSet(bft.Service):
    """Numbers the members of a set and keeps the numbers in a map: result alike, state not."""

    def __init__(self) -> None:
        self.numbers: bft.Map[str, int] = bft.Map()

    @bft.command
    def number(self, more: str) -> int:
        """Give every name a number."""
        for place, name in enumerate({*NAMES, more}):
            self.numbers[name] = place
        return len(self.numbers)


class WallClock(bft.Service):
    """Stamps by the machine's clock, to the second."""

    def __init__(self) -> None:
        self.stamps: bft.Map[str, int] = bft.Map()

    @bft.command
    def stamp(self, name: str) -> None:
        """Keep the time."""
        self.stamps[name] = int(time.time())


class ImportedClock(bft.Service):
    """The same by `from time import time`."""

    def __init__(self) -> None:
        self.last = 0

    @bft.command
    def stamp(self) -> int:
        """The hour."""
        self.last = int(imported_time()) // 3600
        return self.last


class Calendar(bft.Service):
    """Uses the day of `datetime.now()`, of both ways to import it."""

    def __init__(self) -> None:
        self.day = ""

    @bft.command
    def today(self) -> str:
        """The day."""
        self.day = f"{datetime.datetime.now():%Y-%m-%d}{imported_datetime.utcnow():%Y-%m-%d}"
        return self.day


class LocalZone(bft.Service):
    """Formats an agreed time in the machine's zone."""

    def __init__(self) -> None:
        self.text = ""

    @bft.command
    def show(self) -> str:
        """Hours and minutes."""
        self.text = time.strftime("%H:%M", time.localtime(bft.context().time_ns // 1_000_000_000))
        return self.text


class Dice(bft.Service):
    """Draws lots with the module `random`."""

    def __init__(self) -> None:
        self.drawn: bft.Map[str, int] = bft.Map()

    @bft.command
    def draw(self, name: str) -> None:
        """Keep a number."""
        self.drawn[name] = random.randrange(1000)


class SystemDice(bft.Service):
    """Draws lots from the system."""

    def __init__(self) -> None:
        self.token = b""

    @bft.command
    def draw(self) -> int:
        """Keep eight bytes."""
        self.token = os.urandom(8)
        return 0


class Address(bft.Service):
    """Returns where an object lies."""

    def __init__(self) -> None:
        self.count = 0

    @bft.command
    def address(self) -> int:
        """An id."""
        self.count += 1
        return id(object())


class _Session:
    """An object without a repr of its own."""


class CachedAddress(bft.Service):
    """Caches an object at class level, and lets its repr, which shows the address, slip into an error."""

    cached = _Session()
    errors = (LookupError,)

    def __init__(self) -> None:
        self.count = 0

    @bft.command
    def find(self, name: str) -> int:
        """Always fails."""
        raise LookupError(f"{name} is not in {self.cached}")


class FloatOrder(bft.Service):
    """Adds floats in the order of a set of text."""

    def __init__(self) -> None:
        self.weights: bft.Map[str, float] = bft.Map()
        self.total = 0.0

    @bft.command
    def add(self, name: str, weight: int) -> None:
        """Keep a weight, and the sum of all."""
        self.weights[name] = 1 / (3 + weight % 1000) * 10 ** (weight % 7)
        self.total = 0.0
        for key in set(self.weights.keys()):
            self.total += self.weights[key]


class HiddenState(bft.Service):
    """Keeps a counter outside its attributes, where no checkpoint sees it."""

    def __init__(self) -> None:
        self.total = 0

    @bft.command
    def count(self) -> int:
        """One more."""
        global _calls
        _calls += 1
        return _calls


class RaisesSometimes(bft.Service):
    """Raises what stops a replica, depending on the hash seed."""

    def __init__(self) -> None:
        self.count = 0

    @bft.command
    def touch(self, name: str) -> None:
        """Fails for some names."""
        self.count += 1
        if hash(name) % 16 == 0:
            raise OSError(name)


class AlwaysStops(bft.Service):
    """Raises what stops every replica."""

    def __init__(self) -> None:
        self.count = 0

    @bft.command
    def stop(self) -> None:
        """Fails."""
        raise OSError("no such device")


class Events(bft.Service):
    """Emits events in the order of a set."""

    def __init__(self) -> None:
        self.count = 0

    @bft.command
    def tell(self) -> int:
        """Events for the caller."""
        context = bft.context()
        for name in set(NAMES):
            context.emit(context.client, context.session, name.encode())
        return 0


class Answers(bft.Service):
    """A query in the order of a set."""

    def __init__(self) -> None:
        self.tags: set[str] = set(NAMES)

    @bft.command
    def tag(self, name: str) -> int:
        """Deterministic."""
        self.tags = {*self.tags, name}
        return len(self.tags)

    @bft.query
    def names(self) -> str:
        """Not so."""
        return ",".join(self.tags)


class QueryWrites(bft.Service):
    """A query that remembers who asked: nobody refuses it, and replicas answer different queries."""

    seen: set[str]

    def __init__(self) -> None:
        self.seen = set()

    @bft.query
    def look(self, name: str) -> int:
        """Changes what an attribute holds, once."""
        self.seen.add(name)
        return len(name)


class Innocent(bft.Service):
    """Does with agreed means what the others do wrong, and uses sets where their order does not matter."""

    def __init__(self) -> None:
        self.tags: set[str] = set()
        self.stamps: bft.Map[str, int] = bft.Map()
        self.ordered: dict[str, int] = {}

    @bft.command
    def touch(self, name: str, weight: int) -> list[str]:
        """Clock and dice of the context; a set sorted before use; a set as an attribute."""
        context = bft.context()
        self.tags = {*self.tags, name}
        self.stamps[name] = context.time_ns + context.random().randrange(10)
        self.ordered = dict.fromkeys(sorted(self.tags)[-8:], weight)
        return sorted(self.tags)[:5]

    @bft.query
    def count(self) -> int:
        """How many."""
        return len(self.tags)
