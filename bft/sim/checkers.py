"""Property checkers: they own the truth, and know nothing of the replicas' own data structures.

Each takes a `History` and yields violations. They are public: `check(history)` runs all, and a user's own checker is
any function of the same shape. Each has a mutant of the protocol that it kills (`tests/mutants`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bft.core.evidence import hides
from bft.core.proofs import opened
from bft.epochs import Configuration
from bft.ids import peer_name
from bft.messages import (
    Checkpoint,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    ReplicaMessage,
    ReplyStatement,
    Suspect,
    ViewChange,
)
from bft.sim.grievances import fairness, no_framing, no_groundless_suspicion
from bft.sim.history import History
from bft.sim.linearizability import check_against_log, check_register_history
from bft.wire.codec import decode_replica_message, decode_request


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
    first: dict[tuple[int, int, int], tuple[bytes, int]] = {}
    for replica in history.correct:
        for signed in history.signed.get(replica, []):
            message = opened(signed)
            if not isinstance(message, Commit):
                continue
            known = first.setdefault((message.epoch, message.view, message.seq), (message.digest, replica))
            if known[0] != message.digest:
                yield f"slot {message.seq}: r{known[1]} and r{replica} prepared two digests in view {message.view}"


def decided_binds(history: History) -> Iterator[str]:
    """Once a slot is decided in a view, no correct replica votes for anything else there in a later one [CL99 4.5.1].

    The heart of the view change: the decided digest is what every later NEW-VIEW must propose again.
    """
    decided_in: dict[int, tuple[tuple[int, int], bytes]] = {}
    for _, committed in history.committed:
        certificate = committed.certificate
        known = decided_in.get(certificate.seq)
        if known is None or (certificate.epoch, certificate.view) < known[0]:
            decided_in[certificate.seq] = ((certificate.epoch, certificate.view), certificate.digest)
    for replica in history.correct:
        for signed in history.signed.get(replica, []):
            message = opened(signed)
            if isinstance(message, Prepare | Commit) and message.seq in decided_in:
                view, digest = decided_in[message.seq]
                if (message.epoch, message.view) > view and message.digest != digest:
                    yield (
                        f"slot {message.seq} was decided in view {view[1]}, r{replica} votes for another digest "
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
    for replica, seq, holders, needed in history.stable:
        if holders < needed:
            yield f"r{replica} dropped its log up to {seq}, whose state {holders} correct replicas hold, not {needed}"


def no_contradiction(history: History) -> Iterator[str]:
    """No correct replica ever let out signed messages that could be held against it, restarts included.

    Turns a persistence bug from a fork many views later into a two-message failure.
    """
    for replica in history.correct:
        said: dict[tuple[str, int, int, int], bytes] = {}
        commits: dict[bytes, Commit] = {}
        left = (-1, -1)
        for payload in dict.fromkeys(signed.payload for signed in history.signed.get(replica, [])):
            message = decode_replica_message(payload)
            if isinstance(message, ViewChange):
                left = max(left, (message.epoch, message.view))
                for commit in commits.values():
                    if hides(commit, message):
                        yield f"r{replica} left for view {message.view} without its certificate for slot {commit.seq}"
            elif isinstance(message, Commit):
                commits[payload] = message
            if isinstance(message, PrePrepare | Prepare | Commit) and (message.epoch, message.view) < left:
                key = (type(message).__name__, message.epoch, message.view, message.seq)
                if said.get(key) != message.digest:
                    yield f"r{replica} signed {key[0]} in view {message.view} after leaving for view {left[1]}"
            for statement, content in _statements(message, payload):
                if said.setdefault(statement, content) != content:
                    yield f"r{replica} signed two different {statement[0]} in view {statement[2]}, slot {statement[3]}"


def _statements(message: ReplicaMessage, payload: bytes) -> Iterator[tuple[tuple[str, int, int, int], bytes]]:
    """(what a correct replica says at most once: kind, epoch, view, slot; what it said)."""
    match message:
        case PrePrepare() | Prepare() | Commit():
            yield (type(message).__name__, message.epoch, message.view, message.seq), message.digest
            yield ("votes", message.epoch, message.view, message.seq), message.digest
        case Checkpoint():
            yield ("Checkpoint", message.epoch, 0, message.seq), message.digest
        case ViewChange() | NewView():
            yield (type(message).__name__, message.epoch, message.view, 0), payload
        case ReplyStatement():
            client = int.from_bytes(message.client + message.session.to_bytes(8, "big"), "big")
            yield ("ReplyStatement", message.epoch, client, message.seq), message.digest
        case _:
            pass


def no_takeover(history: History) -> Iterator[str]:
    """No correct replica leaves for a view that no correct one wanted: liars alone cannot drive views on.

    Whoever is first in the highest view got there by a weak quorum of SUSPECTs, or by giving up the view before.
    """
    left: dict[int, set[int]] = {}
    complained: dict[int, set[int]] = {}
    for replica in history.correct:
        for signed in history.signed.get(replica, []):
            message = opened(signed)
            if isinstance(message, ViewChange):
                left.setdefault(message.epoch, set()).add(message.view)
            elif isinstance(message, Suspect):
                complained.setdefault(message.epoch, set()).add(message.view)
    for epoch, views in left.items():
        highest = max(views)
        if highest - 1 not in views and highest - 1 not in complained.get(epoch, ()):
            yield f"correct replicas left for view {highest}, of whose predecessor none of them complained"


def epochs(history: History) -> Iterator[str]:
    """One membership per epoch; its slots are decided by its members, and by nobody else.

    Whatever a correct replica signs is of an epoch that it belongs to, beyond the slot where that epoch begins and not
    beyond the one where it ends.
    """
    if not history.epochs:
        return  # whoever drove this run has not said
    known: dict[int, Configuration] = {}
    for replica, configuration in history.epochs:
        first = known.setdefault(configuration.epoch, configuration)
        if (first.digest, first.base) != (configuration.digest, configuration.base):
            yield f"r{replica} is in another epoch {configuration.epoch} than others"
    for replica in history.correct:
        for signed in history.signed.get(replica, []):
            message = opened(signed)
            if message is None:
                continue
            epoch = known.get(message.epoch)
            if epoch is None or replica not in epoch.quorums.ids:
                yield f"r{replica} signed {type(message).__name__} in epoch {message.epoch}, which is not its own"
            elif isinstance(message, PrePrepare | Prepare | Commit | Checkpoint):
                after = known.get(message.epoch + 1)
                if message.seq <= epoch.base or (after is not None and message.seq > after.base):
                    yield f"r{replica} signed {type(message).__name__} for slot {message.seq} in epoch {message.epoch}"
    for number, last, (asked, members), is_lawful in history.changes:
        made = known.get(number)
        if not is_lawful:
            yield f"a change of the membership was accepted that must not be: epoch {number}, members {members}"
        elif number != asked or (made is not None and (made.base, made.quorums.members) != (last, members)):
            yield f"a change to {members} was accepted as epoch {number} after slot {last}, and another was made"
    for replica, committed in history.committed:
        certificate = committed.certificate
        epoch, after = known.get(certificate.epoch), known.get(certificate.epoch + 1)
        beyond = after is not None and certificate.seq > after.base
        if epoch is None or certificate.seq <= epoch.base or beyond:
            yield f"r{replica} holds a certificate of epoch {certificate.epoch} for slot {certificate.seq}"


def no_false_accusation(history: History) -> Iterator[str]:
    """Evidence names only corrupted replicas."""
    for replica, evidence in history.accusations:
        if evidence.accused in history.correct:
            yield f"r{replica} accuses r{evidence.accused} of {evidence.kind}"


def evidence_convinces(history: History) -> Iterator[str]:
    """What correct replicas and clients report convinces a judge who has the public keys and nothing else."""
    for reporter, evidence, wrong in history.unproven:
        yield f"{reporter} accuses r{evidence.accused} of {evidence.kind}, but {wrong}"


def no_honest_rejection(history: History) -> Iterator[str]:
    """What a correct replica sends is never malformed, forged or ill formed in the eyes of another."""
    for replica, rejected in history.rejected_honest:
        if rejected.reason not in ("pool-full", "unknown-page", "unknown-manifest", "time-ahead"):
            yield f"r{replica} refused a message of correct {peer_name(rejected.peer)}: {rejected.reason}"


def no_false_amnesia(history: History) -> Iterator[str]:
    """No correct replica believes that it has forgotten: restarts included, it knows all that it has said."""
    found = history.transitions.get("forgotten", 0)
    if found:
        yield f"{found} correct replicas refuse to vote, though their disks are as they left them"


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
        replica: history.final[replica].get("executed") for replica in history.members if replica not in history.halted
    }
    for change in history.unfinished:
        yield f"a change of the membership was never made: {change}"
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
    "epochs": epochs,
    "no-framing": no_framing,
    "fairness": fairness,
    "no-groundless-suspicion": no_groundless_suspicion,
    "no-false-accusation": no_false_accusation,
    "evidence-convinces": evidence_convinces,
    "no-honest-rejection": no_honest_rejection,
    "no-false-amnesia": no_false_amnesia,
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
