"""Arrange a chronicle as a grid: one row a round and words spoken, one column a receiver.

This is the common ground of the terminal's table, the page and the chart: they differ in ink only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bft.generals.ids import GeneralId, Order, Path
from bft.generals.run import Flight, Outcome
from bft.generals.seam import Ballot, Chain, Crown, Echo, Opening, Proposal, Ready
from bft.generals.words import Names, dotted


class Mark(Enum):
    """Say what is special about a message."""

    TRUE = ""
    LIE = "!"
    WITHHELD = "∅"
    REFUSED = "×"


@dataclass(frozen=True, slots=True)
class Cell:
    """Hold what one receiver got; `order` None where nothing was sent."""

    order: Order | None
    mark: Mark
    flight: Flight


@dataclass(frozen=True, slots=True)
class Row:
    """Hold the same words of one speaker to all receivers. `cells[i]` is for general i, None where nobody was
    to speak."""

    round: int
    sender: GeneralId
    path: Path
    label: str
    cells: tuple[tuple[Cell, ...], ...]


def cell_of(flight: Flight) -> Cell:
    """Return the cell of one message."""
    if not flight.sent:
        return Cell(None, Mark.WITHHELD, flight)
    if flight.fault is not None:
        return Cell(flight.message.value, Mark.REFUSED, flight)
    return Cell(flight.message.value, Mark.TRUE if flight.truthful else Mark.LIE, flight)


def label_of(flight: Flight) -> str:
    """Name the words of a message, whatever they say."""
    match flight.message:
        case Ballot(phase=phase) | Proposal(phase=phase) | Crown(phase=phase):
            return f"{type(flight.message).__name__.lower()} {phase}"
        case Opening() | Echo() | Ready():
            return type(flight.message).__name__.lower()
        case Chain():
            return ":" + ":".join(str(signer) for signer in flight.path)
        case _:
            return dotted(flight.path)


def rows_of(outcome: Outcome) -> list[Row]:
    """Arrange the chronicle of a battle."""
    keys: dict[tuple[int, GeneralId, Path, str], list[Flight]] = {}
    for flight in outcome.flights:
        keys.setdefault((flight.round, flight.sender, flight.path, label_of(flight)), []).append(flight)
    return [
        Row(
            round_,
            sender,
            path,
            label,
            tuple(
                tuple(cell_of(flight) for flight in flights if flight.receiver == general)
                for general in outcome.plan.generals
            ),
        )
        for (round_, sender, path, label), flights in keys.items()
    ]


def cell_text(cell: Cell, names: Names) -> str:
    """Return a cell in ink of one colour: `A`, `R!`, `∅→R`, `A×`."""
    if cell.order is None:
        is_defaulted = not isinstance(cell.flight.message, Chain)
        return f"∅→{names.letter(names.plan.default)}" if is_defaulted else "∅"
    return names.letter(cell.order) + cell.mark.value
