"""Token buckets and patience, with time handed in."""

from __future__ import annotations

from bft.config import ClientLimits
from bft.messages import Query, SignedRequest
from bft.runtime.lane import turn_of
from bft.runtime.quota import FORGIVEN_NS, PENALTY_MAX_NS, PENALTY_MIN_NS, QUOTAS_MAX, SECOND, Quota, Quotas
from bft.wire.codec import encode, reads_in

LIMITS = ClientLimits(envelopes_per_second=10, messages_per_second=100, bytes_per_second=1 << 20, burst_seconds=2)
ENVELOPE = encode(SignedRequest(bytes(32), b"payload", bytes(64)))
QUERY = encode(Query(1, 0, True, (b"q",)))
NOW = 50 * SECOND


def _admitted(quota: Quota, frames: list[bytes], seconds: int) -> int:
    """How many frames one at a time get through in this many seconds, by a sender that always has one more."""
    now, end, count = NOW, NOW + seconds * SECOND, 0
    while now < end:
        pause, _ = quota.pause_ns(now)
        if pause:
            now += pause
            continue
        quota.spend(frames[count % len(frames) : count % len(frames) + 1], now)
        count += 1
    return count


def test_rate_and_burst_are_what_the_limits_say() -> None:
    """Two seconds' worth at once, the rate from then on."""
    assert _admitted(Quota(LIMITS, NOW), [ENVELOPE], 10) in range(10 * 12, 10 * 12 + 3)
    assert _admitted(Quota(LIMITS, NOW), [QUERY], 10) in range(100 * 12, 100 * 12 + 3)


def test_bytes_count_whatever_the_frames_are() -> None:
    """Few large frames use up what many small ones would."""
    assert _admitted(Quota(LIMITS, NOW), [bytes(1 << 19)], 10) in range(24, 27)


def test_reads_that_share_a_frame_count() -> None:
    """Sixty-four reads are as much as seventeen frames; an outline that cannot be read is a frame like any other."""
    together = encode(Query(1, 0, True, (b"q",) * 64))
    assert _admitted(Quota(LIMITS, NOW), [together], 10) in range(100 * 12 // 17, 100 * 12 // 17 + 3)
    frames = (together, QUERY, ENVELOPE, together[:-1], b"\x95\x06", b"")
    assert [reads_in(frame) for frame in frames] == [64, 1, 0, 0, 0, 0]
    assert turn_of([together] * 9, 0) == (1, 5)


def test_sender_is_told_what_it_used_up() -> None:
    """The reason is counted by name."""
    for frames, why in (([ENVELOPE] * 21, "envelopes"), ([QUERY] * 201, "messages"), ([bytes(3 << 20)], "bytes")):
        quota = Quota(LIMITS, NOW)
        assert quota.pause_ns(NOW) == (0, "")
        quota.spend(frames, NOW)
        pause, found = quota.pause_ns(NOW)
        assert pause > 0 and found == why
        assert quota.pause_ns(NOW + pause) == (0, "")


def test_debt_of_one_large_frame_is_paid_back() -> None:
    """A frame larger than the burst gets through once, and costs its time."""
    quota = Quota(LIMITS, NOW)
    quota.spend([bytes(5 << 20)], NOW)
    pause, _ = quota.pause_ns(NOW)
    assert 2.9 * SECOND < pause < 3.1 * SECOND


def test_defaults_leave_a_busy_honest_client_alone() -> None:
    """A thousand callers at 100 000 operations a second, in envelopes of a thousand or a quarter of that."""
    for envelopes, size in ((100, 1000 * 40), (450, 240 * 40)):
        quota = Quota(ClientLimits(), NOW)
        frame = ENVELOPE + bytes(size)
        for step in range(envelopes * 20):
            now = NOW + step * SECOND // envelopes
            assert quota.pause_ns(now) == (0, "")
            quota.spend([frame], now)


def test_bad_signatures_cost_twice_as_much_time_each_time() -> None:
    """Every eighth begins a pause of double length, up to a bound."""
    quota = Quota(ClientLimits(), NOW)
    now, pauses = NOW, []
    for _ in range(12):
        quota.blame(7, now)
        assert quota.pause_ns(now) == (0, "")
        quota.blame(1, now)
        pause, why = quota.pause_ns(now)
        assert why == "bad-signatures"
        pauses.append(pause)
        now += pause
    assert pauses[:4] == [PENALTY_MIN_NS << step for step in range(4)]
    assert pauses[-1] == PENALTY_MAX_NS


def test_good_conduct_is_forgiven() -> None:
    """A client that has been repaired is not remembered for ever."""
    quota = Quota(ClientLimits(), NOW)
    for _ in range(80):
        quota.blame(1, NOW)
    later = NOW + PENALTY_MAX_NS + FORGIVEN_NS + 1
    quota.blame(8, later)
    assert quota.pause_ns(later)[0] == PENALTY_MIN_NS


def test_reconnecting_wins_nothing_and_keys_are_bounded() -> None:
    """The quota is the key's: a new connection finds the debt of the old one."""
    quotas = Quotas(LIMITS)
    quotas.of(b"a" * 32, NOW).blame(8, NOW)
    assert quotas.of(b"a" * 32, NOW).pause_ns(NOW)[0] > 0
    assert quotas.of(b"b" * 32, NOW).pause_ns(NOW)[0] == 0
    for number in range(QUOTAS_MAX):
        quotas.of(number.to_bytes(32, "big"), NOW)
    assert quotas.of(b"a" * 32, NOW).pause_ns(NOW)[0] == 0, "forgotten: the least recently seen goes"


def test_who_keeps_coming_is_not_forgotten_for_new_keys() -> None:
    """Else whoever is left unread would make up keys until its own quota is a new one."""
    quotas = Quotas(LIMITS)
    quotas.of(b"a" * 32, NOW).blame(8, NOW)
    for number in range(2 * QUOTAS_MAX):
        quotas.of(number.to_bytes(32, "big"), NOW)
        assert quotas.of(b"a" * 32, NOW).pause_ns(NOW)[0] > 0
    assert len(quotas._held) == QUOTAS_MAX
