"""A state machine whose rules are the adversary's moves, on real replicas in lockstep."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bft.sim.checkers import check
from bft.sim.lockstep import Lockstep

N = 4
SAFETY = (
    "agreement",
    "total-order",
    "validity",
    "exactly-once",
    "certificates",
    "no-false-accusation",
    "no-honest-rejection",
)
REPLICAS = st.integers(0, N - 1)


class AdversaryMoves(RuleBasedStateMachine):
    """The network and the machines are the adversary's; the replicas are honest."""

    @initialize()
    def begin(self) -> None:
        """Four replicas start."""
        self.cluster = Lockstep(range(N))
        self.cluster.start()
        self.requests = 0

    @rule(to=st.sets(REPLICAS, min_size=1))
    def submit(self, to: set[int]) -> None:
        """A client's request gets under way to some replicas."""
        if self.requests < 12:
            self.requests += 1
            frame = self.cluster.request(self.requests, ["put", "k", str(self.requests)])
            self.cluster.submit(frame, sorted(to))

    @precondition(lambda self: self.cluster.flights)
    @rule(choice=st.integers(0, 1 << 16))
    def deliver(self, choice: int) -> None:
        """Any message arrives next."""
        flights = self.cluster.flights
        self.cluster.deliver(flights.pop(choice % len(flights)))

    @precondition(lambda self: self.cluster.flights)
    @rule(count=st.integers(1, 30))
    def deliver_in_order(self, count: int) -> None:
        """A calm moment."""
        for _ in range(min(count, len(self.cluster.flights))):
            self.cluster.deliver(self.cluster.flights.pop(0))

    @precondition(lambda self: self.cluster.flights)
    @rule(choice=st.integers(0, 1 << 16))
    def duplicate(self, choice: int) -> None:
        """A message arrives and stays under way."""
        flights = self.cluster.flights
        self.cluster.deliver(flights[choice % len(flights)])

    @precondition(lambda self: self.cluster.flights)
    @rule(choice=st.integers(0, 1 << 16))
    def drop(self, choice: int) -> None:
        """A message is lost."""
        flights = self.cluster.flights
        del flights[choice % len(flights)]

    @precondition(lambda self: self.cluster.flights)
    @rule(replica=REPLICAS)
    def isolate(self, replica: int) -> None:
        """All that is under way from and to one replica is lost."""
        flights = self.cluster.flights
        flights[:] = [flight for flight in flights if replica not in (flight.source, flight.target)]

    @rule(replica=REPLICAS)
    def crash_or_restart(self, replica: int) -> None:
        """A process ends, or begins again from its disk."""
        instance = self.cluster.instances[replica]
        if instance.up:
            self.cluster.crash(instance)
        else:
            self.cluster.restart(instance)

    @rule(replica=REPLICAS, milliseconds=st.sampled_from((1, 80, 450, 2000)))
    def tick(self, replica: int, milliseconds: int) -> None:
        """Time passes, one timer fires."""
        self.cluster.tick(self.cluster.instances[replica], milliseconds)

    @invariant()
    def keeps_every_safety_property(self) -> None:
        """Whatever the adversary did, nothing is broken."""
        if hasattr(self, "cluster"):
            assert check(self.cluster.history, SAFETY) == []

    def teardown(self) -> None:
        """Once the network is calm and all processes run, everything gets done."""
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        for instance in cluster.instances:
            if not instance.up:
                cluster.restart(instance)
        for number in range(1, self.requests + 1):
            cluster.submit(cluster.request(number, ["put", "k", str(number)]))
        cluster.settle(8000, 100)
        assert check(cluster.history, SAFETY) == []
        executed = {instance.summary()["executed"] for instance in cluster.instances}
        assert len(executed) == 1, f"replicas stand at {executed} after a calm time"
        numbers = {call.number for item in cluster.history.executions for call in item.effect.calls}
        assert numbers == set(range(1, self.requests + 1)), "every request executes in the end"


TestAdversaryMoves = AdversaryMoves.TestCase
TestAdversaryMoves.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
