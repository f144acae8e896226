"""Some envelopes go to all replicas at once, at moments that nobody but the client can foresee."""

from __future__ import annotations

from itertools import pairwise

from bft.client.witness import Witness
from bft.config import MILLISECOND
from bft.sim.keys import KeyVault
from tests.unit.client.bench import Bench

INTERVAL = 25 * MILLISECOND


def _moments(index: int, interval: int = INTERVAL) -> list[int]:
    """Milliseconds at which a client that sends all the time is witnessed, within two seconds."""
    vault = KeyVault(0)
    witness = Witness(interval, vault.client_signer(vault.client_key(index)))
    return [at for at in range(2000) if witness.is_due(at * MILLISECOND)]


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
