"""Which votes a key may give: the double-sign guard as a pure table.

    PRE-PREPARE, PREPARE (view, seq) -> digest     one digest; never in a view below the slot's last one
    COMMIT (view, seq) -> digest                   the same digest as the PREPARE of that view
    CHECKPOINT seq -> digest                       one digest
    VIEW-CHANGE view, NEW-VIEW view -> payload     one payload; never below the last one
    after VIEW-CHANGE(v):                          no new vote in a view below v
    at or below the stable checkpoint:             nothing

An equal vote is always signed again: a restarted replica repeats its votes. Why two votes that this table lets
through do not exclude each other: every pair that the protocol calls evidence (`bft.core.evidence`) has equal kind and
place and another content, which is refused whatever the replica's store or process has become. One kind is not: a
VIEW-CHANGE that hides a certificate, since a certificate that died with the process before its COMMIT left is rightly
missing.

Why a correct replica is not refused: it votes for one digest per slot and view, views only grow, and it votes above
its stable checkpoint only. The floor follows what is *durable* in its store (`Sign.stable`). What it signed and lost
with its process before writing it down comes back to it (`bft.signing.memory`). Two entries are kept per slot and
phase: what the store brings back may be one view older than what was signed last.

Two cases are left, both of a process that dies between signing and writing: a faulty primary then proposes something
else for a PREPARE that was lost; or a new primary dies between signing its proposals and the NEW-VIEW around them, and
would propose others. The replica must not vote so, and stops; started again, it goes on with the next view.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bft.messages import (
    Checkpoint,
    Commit,
    NewView,
    PagesServed,
    Prepare,
    PrePrepare,
    ReplicaMessage,
    ReplyStatement,
    Suspect,
    ViewChange,
)
from bft.wire.codec import encode

VOTES_MAX = 65_536
"""A correct replica has at most two phases times a few windows (4096 slots at the most) above its stable checkpoint."""
CODES = {
    "conflict": "another vote was signed for the same place",
    "old-view": "the key has left that view, or voted for the slot in a later one",
    "old-epoch": "the key has voted in a later epoch",
    "below-floor": "the place is at or below the stable checkpoint",
    "rolled-back": "the store is older than what it has already made durable",
    "other-store": "the key votes with another store",
    "full": "more votes are open than a correct replica has",
    "not-a-vote": "the payload is no message that a replica signs",
    "busy": "another process votes with the key",
    "not-open": "the connection has not opened",
    "wrong-identity": "the agent signs for another replica or cluster",
    "must-not-vote": "the replica was found to have forgotten votes",
    "bad-marker": "the note beside the key cannot be read",
}


class Refused(Exception):
    """The guard refuses a vote.

    Attributes:
        code: one of `CODES`.
    """

    def __init__(self, code: str, detail: str) -> None:
        assert code in CODES, f"{code!r} is no code of a refusal"
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Vote:
    """A recorded vote for a slot.

    Attributes:
        phase: "prepare" (PRE-PREPARE or PREPARE), "commit", or "checkpoint" (view 0).
        proposed: True if it was a PRE-PREPARE.
    """

    epoch: int
    seq: int
    phase: str
    view: int
    digest: bytes
    proposed: bool = False


@dataclass(frozen=True, slots=True)
class ViewVote:
    """The last VIEW-CHANGE or NEW-VIEW signed; `kind` is "view-change" or "new-view"."""

    kind: str
    epoch: int
    view: int
    payload: bytes


Entry = Vote | ViewVote
Place = tuple[int, int, str]


@dataclass(slots=True)
class Ledger:
    """All that was signed and still matters.

    Attributes:
        stable: votes at or below it are refused and forgotten.
        votes: (epoch, seq, phase) -> the vote of the highest view, and the one before it.
        views: the last VIEW-CHANGE and NEW-VIEW.
        votes_max: places that may be open.
    """

    stable: int = 0
    votes: dict[Place, tuple[Vote, ...]] = field(default_factory=dict)
    views: dict[str, ViewVote] = field(default_factory=dict)
    votes_max: int = VOTES_MAX

    def judge(self, message: ReplicaMessage, payload: bytes) -> Entry | None:
        """What must be recorded before this may be signed; None if nothing.

        Raises:
            Refused: it must not be signed.
        """
        match message:
            case Suspect():
                return None  # a complaint promises nothing
            case PrePrepare():
                return self._judge_vote(_vote(message, "prepare", proposed=True))
            case Prepare():
                return self._judge_vote(_vote(message, "prepare"))
            case Commit():
                return self._judge_vote(_vote(message, "commit"))
            case Checkpoint():
                return self._judge_checkpoint(Vote(message.epoch, message.seq, "checkpoint", 0, message.digest))
            case ViewChange():
                return self._judge_view(ViewVote("view-change", message.epoch, message.view, payload))
            case NewView():
                return self._judge_view(ViewVote("new-view", message.epoch, message.view, payload))
            case ReplyStatement():
                return None  # no vote: execution gives it again after every crash, and no other replica builds on it
            case PagesServed():
                if message.asked != message.served:
                    raise Refused("conflict", "pages served: they are not those that were asked for")
                return None

    def record(self, entry: Entry) -> None:
        """Remember what was judged and made durable."""
        if isinstance(entry, ViewVote):
            self.views[entry.kind] = entry
            return
        place = (entry.epoch, entry.seq, entry.phase)
        held = self.votes.get(place, ())
        before = tuple(vote for vote in held if vote.view != entry.view)
        proposed = entry.proposed or any(vote.proposed for vote in held if vote.view == entry.view)
        kept = Vote(entry.epoch, entry.seq, entry.phase, entry.view, entry.digest, proposed)
        self.votes[place] = (kept, *before[:1])

    def advance(self, stable: int) -> None:
        """Raise the floor, never lower it, and forget what is below."""
        if stable <= self.stable:
            return
        self.stable = stable
        self.votes = {place: votes for place, votes in self.votes.items() if place[1] > stable}

    def proposals(self) -> list[bytes]:
        """Payloads of the PRE-PREPAREs signed in the highest view in which there are any, by slot."""
        made = [vote for votes in self.votes.values() for vote in votes if vote.proposed]
        last = max(((vote.epoch, vote.view) for vote in made), default=(0, 0))
        chosen = sorted((vote.seq, vote) for vote in made if (vote.epoch, vote.view) == last)
        return [encode(PrePrepare(vote.epoch, vote.view, seq, vote.digest)) for seq, vote in chosen]

    # --- judging --------------------------------------------------------------------------------------------------

    def _judge_vote(self, vote: Vote) -> Vote | None:
        held = self._require_open(vote)
        same = next((old for old in held if old.view == vote.view), None)
        if same is not None:
            if same.digest != vote.digest:
                raise Refused("conflict", f"{_where(vote)}: signed {_digits(same)}, asked for {_digits(vote)}")
            return None if same.proposed or not vote.proposed else vote
        if held and vote.view < held[0].view:
            raise Refused("old-view", f"{_where(vote)}: the slot was voted for in view {held[0].view}")
        left = self.views.get("view-change")
        if left is not None and (left.epoch, left.view) > (vote.epoch, vote.view):
            raise Refused("old-view", f"{_where(vote)}: a VIEW-CHANGE for view {left.view} was signed")
        other = "commit" if vote.phase == "prepare" else "prepare"
        for old in self.votes.get((vote.epoch, vote.seq, other), ()):
            if old.view == vote.view and old.digest != vote.digest:
                raise Refused("conflict", f"{_where(vote)}: {other} was {_digits(old)}, asked for {_digits(vote)}")
        return vote

    def _judge_checkpoint(self, vote: Vote) -> Vote | None:
        held = self._require_open(vote)
        if not held:
            return vote
        if held[0].digest != vote.digest:
            raise Refused("conflict", f"{_where(vote)}: signed {_digits(held[0])}, asked for {_digits(vote)}")
        return None

    def _judge_view(self, entry: ViewVote) -> ViewVote | None:
        """A NEW-VIEW also stands behind the sender's own VIEW-CHANGEs."""
        where = f"{entry.kind} for view {entry.view}"
        self._require_epoch(entry.epoch, where)
        if self.views.get(entry.kind) == entry:
            return None
        for held in self.views.values():
            if (held.epoch, held.view) > (entry.epoch, entry.view):
                raise Refused("old-view", f"{where}: a {held.kind} for view {held.view} was signed")
        same = self.views.get(entry.kind)
        if same is None or (same.epoch, same.view) < (entry.epoch, entry.view):
            return entry
        raise Refused("conflict", f"{where}: another one was signed")

    def _require_open(self, vote: Vote) -> tuple[Vote, ...]:
        """The votes held for the place, which must be above the floor and in no past epoch."""
        if vote.seq <= self.stable:
            raise Refused("below-floor", f"{_where(vote)}: the stable checkpoint is {self.stable}")
        held = self.votes.get((vote.epoch, vote.seq, vote.phase))
        if held is not None:
            return held
        self._require_epoch(vote.epoch, _where(vote))
        if len(self.votes) >= self.votes_max:
            raise Refused("full", f"{_where(vote)}: {len(self.votes)} votes above checkpoint {self.stable}")
        return ()

    def _require_epoch(self, epoch: int, where: str) -> None:
        for held in self.views.values():
            if held.epoch > epoch:
                raise Refused("old-epoch", f"{where} of epoch {epoch}: {held.kind} of epoch {held.epoch} was signed")


def _vote(message: PrePrepare | Prepare | Commit, phase: str, *, proposed: bool = False) -> Vote:
    return Vote(message.epoch, message.seq, phase, message.view, message.digest, proposed)


def _where(vote: Vote) -> str:
    return f"{vote.phase} at slot {vote.seq}" + ("" if vote.phase == "checkpoint" else f" in view {vote.view}")


def _digits(vote: Vote) -> str:
    return vote.digest.hex()[:12]
