"""The crimes, one per file, by the name under which expressions know them."""

from __future__ import annotations

from collections.abc import Callable

from bft.adversary.crimes.equivocate import equivocate
from bft.adversary.crimes.forge import forge
from bft.adversary.crimes.lie import wrong_reply
from bft.adversary.crimes.silent import silent
from bft.adversary.strategy import Strategy

CRIMES: dict[str, Callable[..., Strategy]] = {
    "equivocate": equivocate,
    "forge": forge,
    "silent": silent,
    "wrong_reply": wrong_reply,
}
