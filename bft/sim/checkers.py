"""Property checkers: they own the truth, and know nothing of the replicas' own data structures.

Each takes a `History` and yields violations. They are public: `check(history)` runs all, and a user's own checker is
any function of the same shape. Each has a mutant of the protocol that it kills (`tests/mutants`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bft.core.proofs import opened
from bft.ids import peer_name
from bft.membership import Quorums
from bft.messages import Checkpoint, Commit, Message, Prepare, PrePrepare, Suspect, ViewChange
from bft.sim.history import History
from bft.sim.linearizability import check_against_log, check_register_history
from bft.wire.codec import decode_request


@dataclass(frozen=True, slots=True)
class Violation:
    """A property that a run broke.

    Attributes:
        checker: the checker's name.
        detail: what was found, for people.
    """

    checker: str
    detail: str


TIME_AHEAD_NS = 10_000_000_000
"""The protocol's bound of one second, and clocks that a scenario shifts by a few."""

Checker = Callable[[History], Iterator[str]]


def agreement(history: History) -> Iterator[str]:
    """No two correct replicas (or lives of one) execute different batches at one sequence number."""
    first: dict[int, tuple[bytes, int]] = {}
    for execution in history.executions:
        known = first.setdefault(execution.effect.seq, (execution.digest, execution.replica))
        if known[0] != execution.digest:
            yield (
                f"slot {execution.effect.seq}: r{known[1]} executed {known[0].hex()[:8]}, "
                f"r{execution.replica} executed {execution.digest.hex()[:8]}"
            )


def total_order(history: History) -> Iterator[str]:
    """Every life of a correct replica executes slots one by one, and equal slots give equal operations and results."""
    last: dict[tuple[int, int], int] = {}
    first: dict[int, tuple[object, int]] = {}
    for execution in history.executions:
        seq = execution.effect.seq
        life = (execution.replica, execution.life)
        if life in last and seq <= last[life]:
            yield f"r{execution.replica} executed slot {seq} after slot {last[life]}"
        last[life] = seq
        calls = [(call.client, call.session, call.number, call.operation) for call in execution.effect.calls]
        outcome = (calls, execution.results, execution.effect.time_ns)
        known = first.setdefault(seq, (outcome, execution.replica))
        if known[0] != outcome and execution.results:
            yield f"slot {seq}: r{known[1]} and r{execution.replica} executed it with different outcomes"


def validity(history: History) -> Iterator[str]:
    """Whatever executes was signed by the client in whose name it executes."""
    issued: dict[tuple[bytes, int, int], bytes] = {}
    for (client, session, _), payload in history.issued.items():
        request = decode_request(payload)
        for place, operation in enumerate(request.operations):
            issued[client, session, request.number + place] = operation
    clients = {key[0] for key in issued}
    for execution in history.executions:
        for call in execution.effect.calls:
            if call.client not in clients:
                continue
            if issued.get((call.client, call.session, call.number)) != call.operation:
                yield f"slot {execution.effect.seq}: operation {call.number} was never signed by its client"


def exactly_once(history: History) -> Iterator[str]:
    """Each operation of a session executes in at most one slot."""
    where: dict[tuple[bytes, int, int], int] = {}
    for execution in history.executions:
        seen = set()
        for call in execution.effect.calls:
            key = (call.client, call.session, call.number)
            slot = where.setdefault(key, execution.effect.seq)
            if slot != execution.effect.seq or key in seen:
                again = execution.effect.seq
                yield f"operation {call.number} of {call.client.hex()[:8]} executed in slots {slot} and {again}"
            seen.add(key)


def client_order(history: History) -> Iterator[str]:
    """Operations of one lane execute in the order of submission."""
    lanes: dict[tuple[bytes, int], list[tuple[int, tuple[int, int]]]] = {}
    for operation in history.operations:
        if operation.lane and operation.completed is not None:
            lane = lanes.setdefault((operation.client, operation.lane), [])
            lane.append((operation.ticket, operation.position))
    for (client, name), entries in lanes.items():
        positions = [position for _, position in sorted(entries)]
        if positions != sorted(positions):
            yield f"lane {name} of {client.hex()[:8]} executed out of order"


def durability(history: History) -> Iterator[str]:
    """Every ordered operation that a client saw complete is in the agreed log at the position it was told."""
    log: dict[tuple[int, int], bytes] = {}
    for execution in history.executions:
        for call in execution.effect.calls:
            log[execution.effect.seq, call.index] = call.operation
    for operation in history.operations:
        if operation.completed is None or operation.is_query:
            continue
        if log.get(operation.position) != operation.operation:
            yield f"operation {operation.ticket} completed at {operation.position}, which no correct replica executed"


def results(history: History) -> Iterator[str]:
    """What a client was told is what correct replicas computed."""
    told: dict[tuple[int, int], tuple[int, bytes]] = {}
    for execution in history.executions:
        for call, result in zip(execution.effect.calls, execution.results, strict=False):
            told.setdefault((execution.effect.seq, call.index), result)
    for operation in history.operations:
        if operation.completed is None or operation.is_query:
            continue
        expected = told.get(operation.position)
        if expected is not None and expected != (operation.status, operation.value):
            yield f"operation {operation.ticket} was answered with another result than it had"


def linearizability(history: History) -> Iterator[str]:
    """Completed operations, reads included, look as if they took effect one by one within their calls [HW90]."""
    log = {
        (execution.effect.seq, call.index): call.operation
        for execution in history.executions
        for call in execution.effect.calls
    }
    for broken in (
        check_against_log(history.operations, sorted(log.items())),
        check_register_history(history.operations),
    ):
        if broken is not None:
            yield broken


def checkpoint_consistency(history: History) -> Iterator[str]:
    """Correct replicas that take a checkpoint at one slot have the same state there."""
    first: dict[int, tuple[bytes, int]] = {}
    for replica, seq, digest in history.checkpoints:
        known = first.setdefault(seq, (digest, replica))
        if known[0] != digest:
            yield f"checkpoint {seq}: r{known[1]} and r{replica} have different states"


def certificates(history: History) -> Iterator[str]:
    """All commit certificates that correct replicas report for one slot are for one digest."""
    first: dict[int, bytes] = {}
    for replica, committed in history.committed:
        certificate = committed.certificate
        if first.setdefault(certificate.seq, certificate.digest) != certificate.digest:
            yield f"slot {certificate.seq}: r{replica} holds a certificate for another digest"
        if len({item.replica for item in certificate.commits}) != len(certificate.commits):
            yield f"slot {certificate.seq}: a certificate counts a signer twice"


def prepared_once(history: History) -> Iterator[str]:
    """In one view, all correct replicas that COMMIT a slot commit to one digest: shows a fork before anyone executes.

    Two prepared certificates of one view and slot would share a correct replica that voted twice.
    """
    first: dict[tuple[int, int], tuple[bytes, int]] = {}
    for replica in history.correct:
        for signed in history.signed.get(replica, []):
            message = opened(signed)
            if not isinstance(message, Commit):
                continue
            known = first.setdefault((message.view, message.seq), (message.digest, replica))
            if known[0] != message.digest:
                yield f"slot {message.seq}: r{known[1]} and r{replica} prepared two digests in view {message.view}"


def decided_binds(history: History) -> Iterator[str]:
    """Once a slot is decided in a view, no correct replica votes for anything else there in a later one [CL99 4.5.1].

    The heart of the view change: the decided digest is what every later NEW-VIEW must propose again.
    """
    decided_in: dict[int, tuple[int, bytes]] = {}
    for _, committed in history.committed:
        certificate = committed.certificate
        known = decided_in.get(certificate.seq)
        if known is None or certificate.view < known[0]:
            decided_in[certificate.seq] = (certificate.view, certificate.digest)
    for replica in history.correct:
        for signed in history.signed.get(replica, []):
            message = opened(signed)
            if isinstance(message, Prepare | Commit) and message.seq in decided_in:
                view, digest = decided_in[message.seq]
                if message.view > view and message.digest != digest:
                    yield (
                        f"slot {message.seq} was decided in view {view}, r{replica} votes for another digest "
                        f"in view {message.view}"
                    )


def agreed_time(history: History) -> Iterator[str]:
    """The agreed time is near some correct clock when a slot executes: no primary pushes it ahead."""
    for execution in history.executions:
        if execution.effect.time_ns > execution.at + TIME_AHEAD_NS:
            ahead = (execution.effect.time_ns - execution.at) // 1_000_000
            yield f"slot {execution.effect.seq} executes {ahead} ms ahead of r{execution.replica}'s clock"


def stable_is_held(history: History) -> Iterator[str]:
    """When a low watermark advances, a weak quorum of replicas at least holds the state: it can still be fetched.

    A strong quorum signed; the corrupted among them may lie.
    """
    strong = Quorums.of(history.n).strong
    needed = strong - (history.n - len(history.correct))
    for replica, seq, holders in history.stable:
        if holders < needed:
            yield f"r{replica} dropped its log up to {seq}, whose state {holders} correct replicas hold, not {needed}"


def no_contradiction(history: History) -> Iterator[str]:
    """No correct replica ever let out two signed messages that exclude each other, restarts included.

    Turns a persistence bug from a fork many views later into a two-message failure.
    """
    for replica in history.correct:
        said: dict[tuple[str, int, int], bytes] = {}
        left = -1
        for signed in history.signed.get(replica, []):
            message = opened(signed)
            assert message is not None, "a correct replica signs readable messages"
            if isinstance(message, ViewChange):
                left = max(left, message.view)
            elif isinstance(message, PrePrepare | Prepare | Commit) and message.view < left:
                key = (type(message).__name__, message.view, message.seq)
                if said.get(key) != message.digest:
                    yield f"r{replica} signed {key[0]} in view {message.view} after leaving for view {left}"
            statement, content = _statement(message)
            if statement is not None and said.setdefault(statement, content) != content:
                yield f"r{replica} signed two different {statement[0]} in view {statement[1]}, slot {statement[2]}"


def _statement(message: Message) -> tuple[tuple[str, int, int] | None, bytes]:
    """(what a correct replica says at most once, what it said)."""
    match message:
        case PrePrepare() | Prepare() | Commit():
            return (type(message).__name__, message.view, message.seq), message.digest
        case Checkpoint():
            return ("Checkpoint", 0, message.seq), message.digest
        case _:
            return None, b""


def no_takeover(history: History) -> Iterator[str]:
    """No correct replica leaves for a view that no correct one wanted: liars alone cannot drive views on.

    Whoever is first in the highest view got there by a weak quorum of SUSPECTs, or by giving up the view before.
    """
    left: set[int] = set()
    complained: set[int] = set()
    for replica in history.correct:
        for signed in history.signed.get(replica, []):
            message = opened(signed)
            if isinstance(message, ViewChange):
                left.add(message.view)
            elif isinstance(message, Suspect):
                complained.add(message.view)
    highest = max(left, default=0)
    if highest and highest - 1 not in left and highest - 1 not in complained:
        yield f"correct replicas left for view {highest}, of whose predecessor none of them complained"


def fairness(history: History) -> Iterator[str]:
    """While an operation of a correct client waits, hostile clients get a bounded number of theirs executed.

    The bound is the share of a client that is served in turn; what reached the primary before it is in flight.
    """
    if not history.fair_share:
        return
    correct = {operation.client for operation in history.operations}
    slots = _hostile_slots(history, correct)
    for operation in history.operations:
        if operation.is_query:
            continue
        until = operation.completed if operation.completed is not None else history.end
        begin = bisect_left(slots, (operation.invoked, 0))
        passed = sum(count for _, count in slots[begin : bisect_left(slots, (until, 0))])
        if passed > history.fair_share:
            yield (
                f"operation {operation.ticket} of {operation.client.hex()[:8]} waited while {passed} operations of"
                f" hostile clients executed; a fair share is {history.fair_share}"
            )


def _hostile_slots(history: History, correct: set[bytes]) -> list[tuple[int, int]]:
    """(time, operations of others than the correct clients) of every slot, when a replica first executed it."""
    first: dict[int, tuple[int, int]] = {}
    for execution in history.executions:
        count = sum(call.client not in correct for call in execution.effect.calls)
        first.setdefault(execution.effect.seq, (execution.at, count))
    return sorted(first.values())


def no_groundless_suspicion(history: History) -> Iterator[str]:
    """Without lies, faults and losses nobody complains of a primary, whatever clients send.

    Else a client could depose one correct primary after another, and nobody would be served.
    """
    if not history.fair_share:
        return
    for replica in history.correct:
        for signed in history.signed.get(replica, []):
            message = opened(signed)
            if isinstance(message, Suspect):
                yield f"r{replica} complains of the primary of view {message.view}: {message.reason}"


def no_false_accusation(history: History) -> Iterator[str]:
    """Evidence names only corrupted replicas."""
    for replica, evidence in history.accusations:
        if evidence.accused in history.correct:
            yield f"r{replica} accuses r{evidence.accused} of {evidence.kind}"


def no_honest_rejection(history: History) -> Iterator[str]:
    """What a correct replica sends is never malformed, forged or ill formed in the eyes of another."""
    for replica, rejected in history.rejected_honest:
        if rejected.reason not in ("pool-full", "unknown-page", "unknown-manifest", "time-ahead"):
            yield f"r{replica} refused a message of correct {peer_name(rejected.peer)}: {rejected.reason}"


def no_crash(history: History) -> Iterator[str]:
    """No input makes a correct replica fail an assertion."""
    for crashed, text in history.crashed_by_bug:
        yield f"r{crashed} failed an assertion: {text}"


def bounded_state(history: History) -> Iterator[str]:
    """Every table stays within a bound that follows from the configuration."""
    window = 16
    bounds = {
        "slots": window,
        "batches": window * 8,
        "checkpoint_votes": history.n * (window + 2),
        "view_changes": 2 * history.n,
        "sessions": 64,
    }
    for name, bound in bounds.items():
        if history.sizes.get(name, 0) > bound:
            yield f"{name} grew to {history.sizes[name]}, bound {bound}"


def liveness(history: History) -> Iterator[str]:
    """After the global stabilisation time every call of a correct client completes, and correct replicas catch up."""
    waiting = [operation for operation in history.operations if operation.completed is None]
    if waiting:
        first = waiting[0]
        yield f"{len(waiting)} calls never completed; the first is {first.ticket} of {first.client.hex()[:8]}"
    executed = {
        replica: history.final[replica].get("executed") for replica in history.correct if replica not in history.halted
    }
    if len(set(executed.values())) > 1:
        yield f"correct replicas stand at different slots at the end: {executed}"


CHECKERS: dict[str, Checker] = {
    "agreement": agreement,
    "total-order": total_order,
    "validity": validity,
    "exactly-once": exactly_once,
    "client-order": client_order,
    "durability": durability,
    "results": results,
    "linearizability": linearizability,
    "checkpoint-consistency": checkpoint_consistency,
    "certificates": certificates,
    "prepared-once": prepared_once,
    "decided-binds": decided_binds,
    "stable-is-held": stable_is_held,
    "agreed-time": agreed_time,
    "no-contradiction": no_contradiction,
    "no-takeover": no_takeover,
    "fairness": fairness,
    "no-groundless-suspicion": no_groundless_suspicion,
    "no-false-accusation": no_false_accusation,
    "no-honest-rejection": no_honest_rejection,
    "no-crash": no_crash,
    "bounded-state": bounded_state,
    "liveness": liveness,
}


def check(history: History, only: tuple[str, ...] = ()) -> list[Violation]:
    """Run every checker (or those named) and collect what they find, at most three per checker."""
    found: list[Violation] = []
    for name, checker in CHECKERS.items():
        if only and name not in only:
            continue
        for count, detail in enumerate(checker(history)):
            if count == 3:
                break
            found.append(Violation(name, detail))
    return found


def decided(history: History) -> bool:
    """True if anything was executed: a run that decided nothing is inconclusive, never a pass."""
    return any(execution.effect.calls for execution in history.executions)
