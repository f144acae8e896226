"""Name the ways to betray that exist with signatures only.

Some are legal moves that SM must survive (`two-orders`, `late`, `withhold`); the others are chains that a
loyal general must refuse, one crime a reason. A traitor signs for any fellow traitor; nothing here can sign
for a loyal general.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bft.generals.ids import GeneralId
from bft.generals.seam import Chain, Link, Send
from bft.generals.signed import endorse
from bft.generals.traitors import Crime, View


def _victims(view: View) -> list[GeneralId]:
    members = view.coalition.members
    return [to for to in view.plan.lieutenants if to not in members and view.plan.has_road(view.me, to)]


def _pass(send: Send, view: View) -> Sequence[Send]:
    return (send,)


def _coalition_chain(view: View, order: str, length: int) -> Chain | None:
    """Return a chain of `length` signatures of traitors, the commander's first; None when they are too
    few."""
    members = view.coalition.members
    signers = (view.plan.commander, *(member for member in members if member != view.plan.commander))
    if view.plan.commander not in members or len(signers) < length:
        return None
    chain = Chain(order, ())
    for general in signers[:length]:
        chain = endorse(view.plan, chain, general, view.coalition.signers[general])
    return chain


def _seen_chains(view: View) -> list[Chain]:
    return [seen.message for seen in view.inbox if isinstance(seen.message, Chain)]


def withhold() -> Crime:
    """Pass nothing on: the signatures exist, but nobody gets to see them."""
    return Crime("withhold", lambda send, view: ())


def two_orders() -> Crime:
    """Sign a different order for each half of the lieutenants; a traitor who is no commander passes on
    nothing."""

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        order = view.plan.orders[view.plan.others(view.me).index(send.to) % 2]
        chain = _coalition_chain(view, order, 1) if view.me == view.plan.commander else None
        return () if chain is None else (Send(send.to, chain),)

    return Crime("two-orders", corrupt)


def _reveal(view: View, length: int) -> Sequence[Send]:
    victims = _victims(view)
    chain = _coalition_chain(view, view.plan.opposite(view.plan.order), length)
    return [Send(victims[0], chain)] if victims and chain is not None else []


def late() -> Crime:
    """Keep a second order among the traitors and show it to one lieutenant in the last round that their
    number allows.

    He is then the k = m case of the proof of Theorem 2: he must already have it, or can still pass it on.
    """

    def invent(view: View) -> Sequence[Send]:
        return (
            _reveal(view, view.round) if view.round == min(len(view.coalition.members), view.rounds) else []
        )

    return Crime("late", _pass, invent)


def too_late() -> Crime:
    """Show one lieutenant a second order in the last round under too few signatures: to be refused."""

    def invent(view: View) -> Sequence[Send]:
        return _reveal(view, 1) if view.round == view.rounds else []

    return Crime("too-late", _pass, invent)


def forge() -> Crime:
    """Put the commander's name under the opposite order without his key: to be refused."""

    def invent(view: View) -> Sequence[Send]:
        if view.round != 2:
            return []
        fake = Chain(view.plan.opposite(view.plan.order), (Link(view.plan.commander, bytes(64)),))
        chain = endorse(view.plan, fake, view.me, view.coalition.signers[view.me])
        return [Send(to, chain) for to in _victims(view)]

    return Crime("forge", _pass, invent)


def duplicate() -> Crime:
    """Sign twice, to give a chain the length that its round asks for: to be refused."""

    def invent(view: View) -> Sequence[Send]:
        order = view.plan.opposite(view.plan.order)
        chain = _coalition_chain(view, order, 1) or next(iter(_seen_chains(view)), None)
        if view.round < 2 or chain is None or len(chain.links) > view.round:
            return []
        while len(chain.links) < view.round:
            chain = endorse(view.plan, chain, view.me, view.coalition.signers[view.me])
        return [Send(to, chain) for to in _victims(view)]

    return Crime("duplicate", _pass, invent)


def truncate() -> Crime:
    """Cut the last but one signature out of a chain and sign the rest: to be refused."""

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        chain = send.message
        if not isinstance(chain, Chain) or len(chain.links) < 2:
            return (send,)
        cut = Chain(chain.value, (*chain.links[:-2], chain.links[-1]))
        return (Send(send.to, cut),)

    return Crime("truncate", corrupt)


def reorder() -> Crime:
    """Swap the last two signatures of a chain: to be refused."""

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        chain = send.message
        if not isinstance(chain, Chain) or len(chain.links) < 2:
            return (send,)
        swapped = Chain(chain.value, (*chain.links[:-2], chain.links[-1], chain.links[-2]))
        return (Send(send.to, swapped),)

    return Crime("reorder", corrupt)


def loop() -> Crime:
    """Send chains back to those who signed them: to be refused."""

    def invent(view: View) -> Sequence[Send]:
        chains = [
            chain
            for chain in _seen_chains(view)
            if len(chain.links) == view.round - 1 and len(chain.links) > 1
        ]
        signer = view.coalition.signers[view.me]
        return [Send(chain.links[-1].general, endorse(view.plan, chain, view.me, signer)) for chain in chains]

    return Crime("loop", _pass, invent)


def replay() -> Crime:
    """Sign the order as if for another battle, as a chain kept from there would be: to be refused."""

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        chain = send.message
        if not isinstance(chain, Chain):
            return (send,)
        stale = view.coalition.signers[view.me].sign(b"another battle")
        return (Send(send.to, Chain(chain.value, (*chain.links[:-1], Link(view.me, stale)))),)

    return Crime("replay", corrupt)


CRIMES: dict[str, Callable[[], Crime]] = {
    "withhold": withhold,
    "two-orders": two_orders,
    "late": late,
    "too-late": too_late,
    "forge": forge,
    "duplicate": duplicate,
    "truncate": truncate,
    "reorder": reorder,
    "loop": loop,
    "replay": replay,
}
