"""The double-sign guard's table: what is refused, what is signed again, and that nothing signed is evidence."""

from __future__ import annotations

import itertools
import random

import pytest

from bft.core.evidence import contradiction
from bft.messages import (
    Checkpoint,
    Commit,
    Endorsement,
    NewView,
    PagesServed,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    ReplicaMessage,
    ReplyStatement,
    Signed,
    Suspect,
    ViewChange,
)
from bft.signing.rules import Ledger, Refused
from bft.wire.codec import encode

A, B = b"a" * 32, b"b" * 32
VIEW_CHANGE = Signed(0, b"x", bytes(64))


def sign(ledger: Ledger, message: ReplicaMessage) -> None:
    """What the agent does, without disk and key."""
    entry = ledger.judge(message, encode(message))
    if entry is not None:
        ledger.record(entry)


def refusal(ledger: Ledger, message: ReplicaMessage) -> str:
    """The code with which a message is refused; empty if it is signed."""
    try:
        ledger.judge(message, encode(message))
    except Refused as refused:
        return refused.code
    return ""


@pytest.mark.parametrize("kind", [PrePrepare, Prepare, Commit])
def test_second_digest_for_a_slot_and_view_is_refused(kind):
    """Equal votes are signed again, others not, also not in the phase beside."""
    ledger = Ledger()
    sign(ledger, kind(0, 2, 5, A))
    assert refusal(ledger, kind(0, 2, 5, A)) == ""
    for other in (PrePrepare, Prepare, Commit):
        assert refusal(ledger, other(0, 2, 5, B)) == "conflict"
        assert refusal(ledger, other(0, 2, 5, A)) == ""
    assert refusal(ledger, kind(0, 2, 6, B)) == ""
    assert refusal(ledger, kind(0, 3, 5, B)) == "", "a later view may decide otherwise"


def test_vote_below_the_slots_last_view_is_refused():
    """Views only grow, slot by slot."""
    ledger = Ledger()
    sign(ledger, Prepare(0, 1, 5, A))
    sign(ledger, Prepare(0, 3, 5, B))
    assert refusal(ledger, Prepare(0, 2, 5, A)) == "old-view"
    assert refusal(ledger, Prepare(0, 1, 5, A)) == "", "the one before may come back from the store"
    assert refusal(ledger, Prepare(0, 1, 5, B)) == "conflict"


def test_no_vote_below_a_view_change():
    """After VIEW-CHANGE(v) nothing new is signed in a view below v; what was signed may be repeated."""
    ledger = Ledger()
    sign(ledger, Commit(0, 1, 5, A))
    sign(ledger, ViewChange(0, 3, None, ()))
    for kind in (PrePrepare, Prepare, Commit):
        assert refusal(ledger, kind(0, 2, 6, A)) == "old-view"
        assert refusal(ledger, kind(0, 3, 6, A)) == ""
    assert refusal(ledger, Commit(0, 1, 5, A)) == ""
    assert refusal(ledger, ViewChange(0, 2, None, ())) == "old-view"
    assert refusal(ledger, NewView(0, 2, (VIEW_CHANGE,), ())) == "old-view"
    assert refusal(ledger, Suspect(0, 1, "request-timeout")) == ""


def test_second_view_change_and_new_view_are_refused():
    """One payload per view."""
    ledger = Ledger()
    sign(ledger, ViewChange(0, 3, None, ()))
    sign(ledger, NewView(0, 3, (VIEW_CHANGE,), ()))
    assert refusal(ledger, ViewChange(0, 3, None, ())) == ""
    assert refusal(ledger, NewView(0, 3, (VIEW_CHANGE,), ())) == ""
    assert refusal(ledger, NewView(0, 3, (VIEW_CHANGE, VIEW_CHANGE), ())) == "conflict"
    certificate = certificate_of(5)
    assert refusal(ledger, ViewChange(0, 3, None, (certificate,))) == "conflict"
    assert refusal(ledger, ViewChange(0, 4, None, (certificate,))) == ""


def certificate_of(seq: int):  # reads like the class that it makes
    """Some certificate: the guard compares bytes."""
    return PreparedCertificate(
        Signed(0, encode(PrePrepare(0, 0, seq, A)), bytes(64)), (Endorsement(1, bytes(64)), Endorsement(2, bytes(64)))
    )


def test_one_checkpoint_per_slot_and_nothing_below_the_floor():
    """The floor only rises; what is below is forgotten and refused, equal or not."""
    ledger = Ledger()
    sign(ledger, Checkpoint(0, 8, A))
    sign(ledger, Prepare(0, 0, 8, A))
    sign(ledger, Prepare(0, 0, 9, A))
    assert refusal(ledger, Checkpoint(0, 8, A)) == ""
    assert refusal(ledger, Checkpoint(0, 8, B)) == "conflict"
    ledger.advance(8)
    ledger.advance(4)
    assert ledger.stable == 8 and [place[1] for place in ledger.votes] == [9]
    for message in (Checkpoint(0, 8, A), Prepare(0, 0, 8, A), Commit(0, 9, 1, A)):
        assert refusal(ledger, message) == "below-floor"


def test_past_epochs_are_refused():
    """Like past views."""
    ledger = Ledger()
    sign(ledger, ViewChange(2, 1, None, ()))
    assert refusal(ledger, Prepare(1, 9, 1, A)) == "old-epoch"
    assert refusal(ledger, Checkpoint(1, 8, A)) == "old-epoch"
    assert refusal(ledger, ViewChange(1, 7, None, ())) == "old-epoch"
    assert refusal(ledger, Prepare(2, 1, 1, A)) == ""


def test_table_is_bounded():
    """A process that asks for votes far and wide does not fill the memory."""
    ledger = Ledger(votes_max=10)
    for seq in range(1, 11):
        sign(ledger, Prepare(0, 0, seq, A))
    assert refusal(ledger, Prepare(0, 0, 11, A)) == "full"
    assert refusal(ledger, Prepare(0, 1, 10, B)) == "", "a slot that is in the table takes no room"
    for view in range(2, 50):
        sign(ledger, Prepare(0, view, 10, A))
    assert sum(map(len, ledger.votes.values())) == 11
    ledger.advance(5)
    assert refusal(ledger, Prepare(0, 0, 11, A)) == ""


@pytest.mark.parametrize("seed", range(20))
def test_nothing_that_is_signed_is_evidence(seed):
    """Whatever a replica asks for, in any order, no two signatures that it gets exclude each other."""
    dice = random.Random(seed)
    ledger = Ledger()
    signed: list[Signed] = []
    for _ in range(600):
        view, seq, digest = dice.randrange(4), dice.randrange(1, 5), dice.choice((A, B))
        message = dice.choice(
            (
                PrePrepare(0, view, seq, digest),
                Prepare(0, view, seq, digest),
                Commit(0, view, seq, digest),
                Checkpoint(0, seq, digest),
                ViewChange(0, view + 1, None, (certificate_of(seq),)) if dice.random() < 0.05 else None,
                NewView(0, view + 1, (VIEW_CHANGE,) * dice.randint(1, 2), ()) if dice.random() < 0.05 else None,
            )
        )
        if dice.random() < 0.01:
            ledger.advance(dice.randrange(4))
        if message is None or refusal(ledger, message):
            continue
        sign(ledger, message)
        signed.append(Signed(1, encode(message), bytes(64)))
    assert len(signed) > 30
    found = {contradiction(one, other) for one, other in itertools.combinations(signed, 2)}
    assert found <= {None, "hidden-certificate"}


def test_what_is_no_vote_is_signed_without_a_record():
    """Replies and pages promise nothing about slots; pages that are not those asked for are a lie at once."""
    ledger = Ledger()
    for message in (ReplyStatement(0, A, 1, 5, A), ReplyStatement(0, A, 1, 5, B), PagesServed(0, (A,), (A,))):
        assert ledger.judge(message, encode(message)) is None
    assert refusal(ledger, PagesServed(0, (A,), (B,))) == "conflict"
