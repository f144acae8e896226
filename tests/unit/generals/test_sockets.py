"""Test battles between processes over TCP: the same decisions as in memory. These tests use real sockets and
real time."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from bft.cli.generals_camp import FRAME_BYTES_MAX, Frame, frame, read_frame
from bft.cli.generals_sockets import fight_over_sockets, make_posts
from bft.generals.algorithms import ORAL, SIGNED, Algorithm
from bft.generals.crimes import crime_named
from bft.generals.ids import GeneralId, GeneralsError
from bft.generals.plan import Plan
from bft.generals.run import fight
from bft.generals.scripts import crimes_of, parse_lie
from bft.generals.seam import Chain, Courier, Crown, Link, Oral

G = GeneralId


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "crime"), [(ORAL, "flip"), (SIGNED, "two-orders")])
def test_processes_decide_what_memory_decides(algorithm: Algorithm, crime: str) -> None:
    """Four processes with one traitor reach the decisions of the run in memory, with as many messages.

    [LSP82 3, A1 to A3]
    """
    plan = Plan(n=4, m=1)
    traitor = G(0) if crime == "two-orders" else G(3)
    outcome, late = fight_over_sockets(algorithm, plan, {traitor: crime}, seed=1, round_ms=400)
    expected = fight(algorithm, plan, {traitor: crime_named(crime, plan)})
    assert outcome.verdict == expected.verdict
    assert outcome.decisions == expected.decisions
    assert outcome.messages == expected.messages
    assert late == 0


@pytest.mark.slow
def test_scripted_lies_travel_to_their_process() -> None:
    """A scripted lie is told by the liar's process and marked in the chronicle.

    [LSP82 3]
    """
    plan = Plan(n=3, m=1)
    lies = [parse_lie("2>1=retreat", plan)]
    outcome, _ = fight_over_sockets(ORAL, plan, {G(2): lies}, seed=1, round_ms=400)
    assert not outcome.verdict.ic2
    assert outcome.decisions[G(1)] == fight(ORAL, plan, crimes_of(lies)).decisions[G(1)]
    assert [f.sender for f in outcome.flights if not f.truthful] == [2]


def test_posts_hold_only_the_keys_that_may_be_held() -> None:
    """A loyal process gets its own key, a traitor's the traitors' keys; tokens are shared by two.

    [LSP82 4, A4]
    """
    posts = make_posts(SIGNED, Plan(n=5, m=2), {G(1): "flip", G(3): "flip"}, seed=1, round_ms=100)
    assert [sorted(post.seeds) for post in posts] == [[0], [1, 3], [2], [1, 3], [4]]
    assert all(len(post.public) == 5 for post in posts)
    assert posts[0].tokens[G(1)] == posts[1].tokens[G(0)]
    assert posts[0].tokens[G(1)] != posts[0].tokens[G(2)]
    assert posts[2].crime is None
    assert posts[2].traitors == ()


def test_too_many_processes_are_refused() -> None:
    """A battle of many processes is the user's error.

    [issue 4]
    """
    with pytest.raises(GeneralsError, match="processes"):
        fight_over_sockets(ORAL, Plan(n=17, m=1), {}, seed=1, round_ms=100)


async def test_frames_are_bounded() -> None:
    """A frame that announces more than the limit ends the connection; one at the limit is read."""
    near, far = trio.testing.memory_stream_pair()
    await near.send_all(frame(b"x" * FRAME_BYTES_MAX))
    assert await read_frame(far) == b"x" * FRAME_BYTES_MAX
    await near.send_all((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    assert await read_frame(far) is None
    await near.send_all(b"\x00\x00")
    await near.aclose()
    assert await read_frame(far) is None


def test_every_message_survives_the_wire() -> None:
    """Each kind of message is read back as it was written; other bytes are refused."""
    chain = Chain("attack", (Link(G(0), bytes(64)),))
    for message in (
        Oral((G(0), G(2)), "attack"),
        Courier((G(0),), G(3), "retreat"),
        chain,
        Crown(2, "attack"),
    ):
        written = msgspec.msgpack.encode(Frame(3, message))
        assert msgspec.msgpack.decode(written, type=Frame) == Frame(3, message)
    for wrong in (
        b"",
        b"nonsense",
        msgspec.msgpack.encode((1, ("oral", "x", "attack"))),
        msgspec.msgpack.encode(7),
    ):
        with pytest.raises(msgspec.MsgspecError):
            msgspec.msgpack.decode(wrong, type=Frame)
