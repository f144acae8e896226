"""Some envelopes go to all replicas at once, at moments that nobody but the client can foresee."""

from __future__ import annotations

from itertools import pairwise

from bft.client.witness import Witness
from bft.config import MILLISECOND
from bft.sim.keys import KeyVault
from tests.unit.client.bench import Bench

INTERVAL = 25 * MILLISECOND


def _witness(index: int, interval: int = INTERVAL) -> Witness:
    vault = KeyVault(0)
    return Witness(interval, vault.client_signer(vault.client_key(index)))


def _moments(index: int, interval: int = INTERVAL) -> list[int]:
    """Milliseconds at which a client that sends all the time is witnessed, within two seconds."""
    witness = _witness(index, interval)
    return [at for at in range(2000) if witness.is_due(at * MILLISECOND, at + 1)]


def _share(slots: int, gap_ms: int, count: int = 400) -> float:
    """The part of its envelopes that are witnessed of a client that sends one in so many slots, this far apart."""
    witness = _witness(0)
    return sum(witness.is_due(at * gap_ms * MILLISECOND, 1 + at * slots) for at in range(count)) / count


def test_gaps_are_half_to_one_and_a_half_intervals():
    """Backups learn how long requests take, and are not loaded by all of them."""
    moments = _moments(0)
    gaps = [after - before for before, after in pairwise(moments)]
    assert 60 <= len(moments) <= 100
    assert min(gaps) >= 12
    assert max(gaps) <= 38
    assert len(set(gaps)) > 10


def test_moments_depend_on_the_clients_secret():
    """A primary that knows one client's moments knows nothing of another's; the same key gives the same again."""
    assert _moments(0) == _moments(0)
    assert _moments(0) != _moments(1)


def test_interval_of_zero_is_never():
    """A cluster may do without."""
    assert _moments(0, interval=0) == []


def test_client_in_few_of_the_slots_is_witnessed_less():
    """200 independent clients would else send half of all envelopes to everybody; together they still show plenty."""
    assert _share(slots=1, gap_ms=40) > 0.99
    assert _share(slots=2, gap_ms=40) > 0.99
    assert 0.15 < _share(slots=20, gap_ms=40) < 0.3
    assert 0.07 < _share(slots=50, gap_ms=40) < 0.15


def test_no_number_of_slots_hides_a_client_for_long():
    """A primary makes slots for others, or for nothing, as it likes: it is still seen once in a second."""
    assert 1 / 30 < _share(slots=1_000_000, gap_ms=40) < 1 / 20


def test_slots_before_the_first_result_do_not_count():
    """A new client of an old cluster has not seen the slots before its own pass by."""
    witness = _witness(0)
    assert not witness.is_due(0, 0)
    assert witness.is_due(2 * INTERVAL, 1_000_000)


def test_witnessed_envelope_goes_to_all_and_the_next_one_to_the_primary():
    """The others go to the primary alone."""
    bench = Bench(protocol={"witness_interval_ms": 25})
    bench.submit(b"a")
    assert [to for to, _ in bench.take_requests()] == [0]
    bench.now += 2 * INTERVAL
    bench.submit(b"b")
    assert [to for to, _ in bench.take_requests()] == [0, 1, 2, 3]
    bench.submit(b"c")
    assert [to for to, _ in bench.take_requests()] == [0]
