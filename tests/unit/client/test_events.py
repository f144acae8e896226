"""Events of a session: in order, once, fetched again when missed, a gap said out loud."""

from __future__ import annotations

from bft.client.session import EventArrived, EventsMissed, Session
from bft.config import Protocol
from bft.core.session import Session as KeptSession
from bft.digests import bundle_digest
from bft.events import Deliver, Send
from bft.membership import Quorums
from bft.messages import Bundle, Event, EventBodies, FetchEvents, Reply
from bft.sim.keys import KeyVault
from bft.wire.codec import encode

CLIENT = KeyVault(0).client_key(0)


def _session() -> Session:
    return Session(Protocol(), Quorums.of(4), CLIENT, KeyVault(0).client_signer(CLIENT), 7)


def _slot(session: Session, seq: int, *events: Event) -> list[object]:
    bundle = encode(Bundle((), events))
    reply = Reply(7, seq, 0, 0, bundle_digest(bundle), bundle)
    return [effect for replica in (0, 1) for effect in session.step(Deliver(replica, reply), seq)]


def _bodies(session: Session, replica: int, first: int, *events: Event) -> list[object]:
    return list(session.step(Deliver(replica, EventBodies(7, first, events)), 100))


def _arrivals(effects: list[object]) -> list[object]:
    return [effect for effect in effects if isinstance(effect, EventArrived | EventsMissed)]


def test_events_arrive_in_order_and_once():
    """A weak quorum's bundle brings them; later copies are dropped."""
    session = _session()
    assert _arrivals(_slot(session, 1, Event(1, b"a"))) == [EventArrived(1, b"a")]
    assert _arrivals(_slot(session, 2, Event(1, b"a"), Event(2, b"b"))) == [EventArrived(2, b"b")]


def test_missing_events_are_asked_for_and_believed_from_a_weak_quorum():
    """One replica's word is not enough, two equal ones are."""
    session = _session()
    asked = [effect.packet for effect in _slot(session, 3, Event(3, b"c")) if isinstance(effect, Send)]
    assert asked == [FetchEvents(7, 0)] * 4
    assert _arrivals(_bodies(session, 3, 1, Event(1, b"lie"), Event(2, b"lie"))) == []
    assert _arrivals(_bodies(session, 0, 1, Event(1, b"a"), Event(2, b"b"))) == []
    assert _arrivals(_bodies(session, 1, 1, Event(1, b"a"), Event(2, b"b"))) == [
        EventArrived(1, b"a"),
        EventArrived(2, b"b"),
        EventArrived(3, b"c"),
    ]


def test_overflow_is_an_explicit_gap():
    """What no correct replica keeps any more is reported as missed; one liar cannot invent a gap."""
    session = _session()
    _slot(session, 9, Event(9, b"i"))
    assert _arrivals(_bodies(session, 3, 9)) == []
    assert _arrivals(_bodies(session, 0, 8, Event(8, b"h"))) == [EventsMissed(1, 7)]
    assert _arrivals(_bodies(session, 1, 8, Event(8, b"h"))) == [EventArrived(8, b"h"), EventArrived(9, b"i")]


def test_replicas_keep_events_and_say_where_they_begin():
    """The real table behind it: events of a session are served by number."""
    kept = KeptSession(CLIENT, 7)
    for _ in range(5):
        kept.emit(bytes(100), 250)
    assert kept.events_after(0).first == 4
    assert [event.number for event in kept.events_after(4).events] == [5]
