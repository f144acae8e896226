"""Name the ways to betray that need no signatures of their own (they work on signed messages too, as far as
keys allow).

Each crime is a function from its arguments, as written on the command line (`flip`, `split:1,3`), to a
`Crime`. The crimes that only exist with signatures are in `crimes_signed`; `crime_named` knows both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bft.generals import crimes_signed
from bft.generals.ids import GeneralId, GeneralsError, Order
from bft.generals.plan import Plan
from bft.generals.seam import Courier, Message, Oral, Send
from bft.generals.traitors import Crime, View, say


def honest() -> Crime:
    """Betray in name only: a traitor who happens to behave."""
    return Crime("honest", lambda send, view: (send,))


def constant(order: Order) -> Crime:
    """Say the same order always, whatever was heard."""
    return Crime(f"constant:{order}", lambda send, view: say(send, order, view))


def flip() -> Crime:
    """Say the opposite of what a loyal general would."""
    return Crime("flip", lambda send, view: say(send, view.plan.opposite(send.message.value), view))


def split(favoured: Sequence[GeneralId]) -> Crime:
    """Say the last order to some and the default to the rest: the two-faced commander, the split vote."""

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        return say(send, view.plan.orders[-1] if send.to in favoured else view.plan.default, view)

    return Crime(f"split:{_join(favoured)}", corrupt)


def silent() -> Crime:
    """Say nothing at all."""
    return Crime("silent", lambda send, view: ())


def silent_to(victims: Sequence[GeneralId]) -> Crime:
    """Say nothing to some."""
    return Crime(f"silent-to:{_join(victims)}", lambda send, view: () if send.to in victims else (send,))


def random() -> Crime:
    """Say any order, or nothing, by the dice; to each receiver afresh."""

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        throw = view.coalition.dice.randrange(len(view.plan.orders) + 1)
        return say(send, (*view.plan.orders, None)[throw], view)

    return Crime("random", corrupt)


def deep() -> Crime:
    """Be honest until the last round, then say the opposite: a lie that nobody can pass on for comparison."""

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        if view.round < view.rounds:
            return (send,)
        return say(send, view.plan.opposite(send.message.value), view)

    return Crime("deep", corrupt)


def frame(victim: GeneralId) -> Crime:
    """Twist the words that came through the victim only, so that he looks like the liar."""

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        if victim not in _path_of(send.message)[:-1]:
            return (send,)
        return say(send, view.plan.opposite(send.message.value), view)

    return Crime(f"frame:{victim}", corrupt)


def tie() -> Crime:
    """Say to each what the fewest others say about the same words, to bring his vote as close to a tie as can
    be.

    Being rushing, the traitor has seen what the loyal say this round, and loyal generals tell everybody the
    same.
    """

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        about = _path_of(send.message)[:-1]
        heard = [
            seen.message.value
            for seen in view.inbox
            if _path_of(seen.message)[:-1] == about and seen.sender != send.to
        ]
        rarest = min(view.plan.orders, key=lambda order: (heard.count(order), view.plan.orders.index(order)))
        return say(send, rarest, view)

    return Crime("tie", corrupt)


def collude() -> Crime:
    """Have all traitors stand for one wrong order, whatever they heard; a treacherous commander splits the
    others first.

    This is the coordinated pair that defeats OM(2) with six generals.
    """

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        orders = view.plan.orders
        wrong = view.plan.opposite(view.plan.order)
        if send.to in view.coalition.members:
            return (send,)
        if view.me == view.plan.commander:
            return say(send, orders[send.to % 2] if len(orders) == 2 else orders[send.to % len(orders)], view)
        return say(send, wrong, view)

    return Crime("collude", corrupt)


def crash(round_: int) -> Crime:
    """Behave, then stop in some round and stay silent."""
    return Crime(f"crash:{round_}", lambda send, view: (send,) if view.round < round_ else ())


def _path_of(message: Message) -> tuple[GeneralId, ...]:
    return message.path if isinstance(message, Oral | Courier) else ()


def _join(generals: Sequence[GeneralId]) -> str:
    return ",".join(str(general) for general in generals)


def _generals(text: str, plan: Plan) -> tuple[GeneralId, ...]:
    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) < plan.n for number in numbers):
        raise GeneralsError(f"generals {text!r}, expected numbers 0..{plan.n - 1} with commas between them")
    return tuple(GeneralId(int(number)) for number in numbers)


def _order(text: str, plan: Plan) -> Order:
    if text not in plan.orders:
        raise GeneralsError(f"order {text!r} is not one of {', '.join(plan.orders)}")
    return text


def _number(text: str) -> int:
    if not text.isdecimal():
        raise GeneralsError(f"round {text!r} is not a number")
    return int(text)


def _half(plan: Plan) -> str:
    return _join(plan.lieutenants[: len(plan.lieutenants) // 2] or plan.lieutenants)


_PLAIN: dict[str, Callable[[], Crime]] = {
    "honest": honest,
    "flip": flip,
    "silent": silent,
    "random": random,
    "deep": deep,
    "tie": tie,
    "collude": collude,
}
_WITH_ARGUMENT: dict[str, Callable[[str, Plan], Crime]] = {
    "constant": lambda text, plan: constant(_order(text or plan.default, plan)),
    "split": lambda text, plan: split(_generals(text or _half(plan), plan)),
    "silent-to": lambda text, plan: silent_to(_generals(text or _half(plan), plan)),
    "frame": lambda text, plan: frame(_generals(text or str(plan.lieutenants[0]), plan)[0]),
    "crash": lambda text, plan: crash(_number(text or "2")),
}
CRIME_NAMES = (*_PLAIN, *_WITH_ARGUMENT, *crimes_signed.CRIMES)


def crime_named(text: str, plan: Plan) -> Crime:
    """Return the crime written as `name` or `name:argument`.

    Raises:
        GeneralsError: no such crime, or its argument makes no sense for this plan.
    """
    name, _, argument = text.partition(":")
    if name in _WITH_ARGUMENT:
        return _WITH_ARGUMENT[name](argument, plan)
    if argument:
        raise GeneralsError(f"crime {name!r} takes no argument, found {argument!r}")
    if name in _PLAIN:
        return _PLAIN[name]()
    if name in crimes_signed.CRIMES:
        return crimes_signed.CRIMES[name]()
    raise GeneralsError(f"crime {name!r} is unknown, expected one of {', '.join(CRIME_NAMES)}")
