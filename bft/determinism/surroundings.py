"""What may differ between two replicas that run the same service, made to differ on purpose.

Hash seed and time zone are set before an interpreter starts; clock, dice and memory inside it, before the service is
imported, so that `from time import time` meets the shifted clock too. Only worker processes do this to themselves.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

DAY_SECONDS = 86_400
SHIFT_SECONDS = 40 * DAY_SECONDS + 7 * 3600 + 13 * 60 + 11
"""Another month, weekday, hour, minute and second."""
BALLAST_OBJECTS = 20_011
ASPECTS = {
    "hash seed": "the order of sets (and of dicts made from sets), or hash() of text or bytes",
    "clock": "the time of day or the time zone: use bft.context().time_ns",
    "dice": "the random module: use bft.context().random()",
    "memory": "where objects lie or when they are collected: id(), hash() or repr() of plain objects, weak references",
}
"""What can be made to differ alone, and what a difference then points at."""
UNCONTROLLED = (
    "something that differs from process to process by itself: id(), hash() or repr() of plain objects,"
    " os.urandom, uuid, secrets, the process id, files, the network"
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Of one worker.

    Attributes:
        hash_seed: PYTHONHASHSEED, 1 to 4294967295 (0 would turn randomisation off).
        zone: TZ in POSIX form, which needs no database.
        shift_s: added to every clock.
        dice: seed of the `random` module.
        ballast: objects allocated first, so that later ones lie elsewhere; also how often garbage is collected.
    """

    hash_seed: int = 1
    zone: str = "UTC0"
    shift_s: int = 0
    dice: int = 1
    ballast: int = 0

    def environment(self) -> dict[str, str]:
        """What must be set before the interpreter starts."""
        return {"PYTHONHASHSEED": str(self.hash_seed), "TZ": self.zone}


def pair(seed: int) -> tuple[Surroundings, Surroundings]:
    """Two surroundings that differ in everything; `seed` chooses hash seeds and dice."""
    first = Surroundings(hash_seed=2 * seed + 1, dice=2 * seed + 1)
    second = first
    for aspect in ASPECTS:
        second = changed(second, aspect, seed)
    return first, second


def changed(surroundings: Surroundings, aspect: str, seed: int) -> Surroundings:
    """The same surroundings but for one aspect."""
    if aspect == "hash seed":
        return replace(surroundings, hash_seed=2 * seed + 2)
    if aspect == "clock":
        return replace(surroundings, zone="BFT-14", shift_s=SHIFT_SECONDS)
    if aspect == "dice":
        return replace(surroundings, dice=2 * seed + 2)
    assert aspect == "memory", f"aspects are {list(ASPECTS)}, not {aspect!r}"
    return replace(surroundings, ballast=BALLAST_OBJECTS)


def enter(surroundings: Surroundings) -> list[object]:
    """Change this process for good; returns the ballast, which the caller must keep."""
    random.seed(surroundings.dice)
    if surroundings.shift_s:
        _shift_clocks(surroundings.shift_s)
    if surroundings.ballast:
        gc.set_threshold(53, 5, 5)
    return [bytearray(place % 61) for place in range(surroundings.ballast)]


def _shift_clocks(by: int) -> None:
    for name in ("time", "monotonic", "perf_counter", "process_time"):
        setattr(time, name, _later(getattr(time, name), by))
        setattr(time, f"{name}_ns", _later(getattr(time, f"{name}_ns"), by * 1_000_000_000))
    for name in ("gmtime", "localtime", "ctime"):
        setattr(time, name, _of_now(getattr(time, name)))
    _shift_datetime(datetime.timedelta(seconds=by))


def _later(clock: Callable[[], Any], by: int) -> Callable[[], Any]:
    return lambda: clock() + by


def _of_now(function: Callable[[float], Any]) -> Callable[..., Any]:
    """`time.gmtime` and its like take the present when they are given nothing: here from the shifted clock."""
    return lambda seconds=None: function(time.time() if seconds is None else seconds)


def _shift_datetime(by: datetime.timedelta) -> None:
    """Shift `datetime.now` and `utcnow`, which read the system's clock without asking `time`.

    Nothing may take the type's place, since annotations mean it; so its own dictionary is changed. Where an interpreter
    does not allow that, microseconds that differ by themselves are left to give the service away.
    """
    now, utcnow = datetime.datetime.now, datetime.datetime.utcnow
    (content,) = gc.get_referents(datetime.datetime.__dict__) or ({},)
    if not isinstance(content, dict):
        return
    content["now"] = classmethod(lambda cls, tz=None: now(tz) + by)
    content["utcnow"] = classmethod(lambda cls: utcnow() + by)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))
