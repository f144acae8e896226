"""Receipts: proofs that a client can show to others of what its operations returned; and liars caught by the way.

For clusters with `signed_replies`, where a replica signs a `ReplyStatement` with each reply. A weak quorum of equal
ones has a correct replica among it, so it is a receipt. Two different ones of one replica are evidence against it, and
so is one that a weak quorum of others contradicts. Signatures are verified when they are needed for either, not before:
whether a result is believed rests on the channels, as without receipts.

A receipt proves the results of the operations that it names by number; what these were, the client's own envelope
tells. It holds while at most f replicas lie. One of a later epoch brings the links that lead there from the cluster
file, so it is as good as one of the first.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec
from msgspec import Meta

from bft.config import Cluster
from bft.core.evidence import WRONG_REPLY, contradiction
from bft.core.verdict import MembersVerifier, epoch_of
from bft.crypto.signatures import Ed25519Verifier
from bft.digests import bundle_digest
from bft.epochs import Chain, ChainError, genesis
from bft.errors import EvidenceError
from bft.events import Evidence
from bft.ids import U63, DigestBytes, KeyBytes
from bft.messages import Endorsement, Endorsements, EpochLink, Payload, ReplyStatement, Result, Signed, SignedReply
from bft.ports import OutsideVerifier
from bft.wire.codec import DECODE_ERRORS, Malformed, decode_bundle, encode

SLOTS_KEPT_MAX = 1024
BYTES_KEPT_MAX = 8 * 1024 * 1024
"""Of one replica; what a replica sends evicts its own statements only."""
BOGUS_MAX = 16
"""Signatures that do not hold before a replica's statements are not looked at any more."""
Slot = tuple[int, int, int]
"""(epoch, session, seq): what is said in another epoch, when a result is sent again, is another statement."""


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a slot returned to a session, vouched for by f + 1 replicas (JSON; bytes as base64).

    Attributes:
        cluster: 32-byte cluster id, which the signatures cover.
        client, session, seq: whose operations executed where.
        bundle: the encoded results and events.
        statements: the replicas' signatures, ascending by replica.
        links: the way from the cluster file's replicas to `epoch`, whose members they are.
    """

    version: Annotated[int, Meta(ge=1, le=1)] = 1
    cluster: DigestBytes
    epoch: U63
    client: KeyBytes
    session: U63
    seq: U63
    bundle: Payload
    statements: Endorsements
    links: tuple[EpochLink, ...] = ()

    def to_json(self) -> bytes:
        """The content of a receipt file."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, content: bytes) -> Receipt:
        """Read a receipt file.

        Raises:
            EvidenceError: it is none.
        """
        try:
            return msgspec.json.decode(content, type=cls)
        except DECODE_ERRORS as error:
            raise EvidenceError(f"no receipt: {error}") from error

    def verify(self, cluster: Cluster) -> tuple[Result, ...]:
        """The results that it proves, with the cluster's public keys alone.

        Raises:
            EvidenceError: it proves nothing; the text says why.
        """
        return self.proven(cluster, Ed25519Verifier(cluster.id, cluster.replica_keys, None))

    def proven(self, cluster: Cluster, verifier: OutsideVerifier) -> tuple[Result, ...]:
        """As `verify`, with a verifier of the caller's."""
        if self.cluster != cluster.id:
            raise EvidenceError("the receipt belongs to another cluster")
        try:
            there = epoch_of(cluster, self.epoch, self.links, verifier)
        except ChainError as error:
            raise EvidenceError(f"the receipt is of epoch {self.epoch}: {error}") from error
        members = MembersVerifier(there, verifier)
        replicas = [statement.replica for statement in self.statements]
        if sorted(set(replicas)) != replicas:
            raise EvidenceError("the receipt's signers are not distinct and ascending")
        if len(replicas) < there.quorums.weak:
            raise EvidenceError(f"{len(replicas)} signers are too few: one of {there.quorums.weak} is correct")
        payload = encode(ReplyStatement(self.epoch, self.client, self.session, self.seq, bundle_digest(self.bundle)))
        for statement in self.statements:
            if not members.verify_replica(statement.replica, payload, statement.signature):
                raise EvidenceError(f"the signature of replica {statement.replica} does not hold for this content")
        try:
            return decode_bundle(self.bundle).results
        except Malformed as error:
            raise EvidenceError(f"the receipt's results cannot be read: {error}") from error


class _Said(msgspec.Struct):
    """What a replica has said of a slot."""

    signed: Signed
    statement: ReplyStatement
    bundle: bytes
    is_verified: bool = False


class Receipts:
    """The signed statements that a client has, from which receipts are made and liars are found."""

    def __init__(
        self, cluster: Cluster, verifier: OutsideVerifier, client: bytes, chain: Chain | None = None
    ) -> None:
        """Follow the epochs that `chain`, which begins at genesis, has proven; without one, know the first only."""
        self._cluster = cluster
        self._verifier = verifier
        self._client = client
        self._chain = chain or Chain(genesis(cluster), verifier)
        assert self._chain.at(0) is not None, "receipts prove themselves from the cluster file: the chain begins there"
        self._members: dict[int, MembersVerifier] = {}
        self._said: dict[int, dict[Slot, _Said]] = {}
        self._bytes: Counter[int] = Counter()
        self._bogus: Counter[int] = Counter()
        self._convicted: dict[tuple[int, str], None] = {}

    def __len__(self) -> int:
        """Statements kept."""
        return sum(map(len, self._said.values()))

    def add(self, replica: int, packet: SignedReply) -> list[Evidence]:
        """Keep what a replica signed; returns what it proves against somebody.

        Of epochs that are not proven nothing is kept: when they are, unfinished requests are answered again.
        """
        reply = packet.reply
        there = self._chain.at(reply.epoch)
        if there is None or replica not in there.quorums.ids or self._bogus[replica] >= BOGUS_MAX:
            return []
        statement = ReplyStatement(reply.epoch, self._client, reply.session, reply.seq, reply.digest)
        said = _Said(Signed(replica, encode(statement), packet.signature), statement, reply.bundle)
        slot = (reply.epoch, reply.session, reply.seq)
        before = self._said.setdefault(replica, {}).get(slot)
        if before is not None and before.statement == statement:
            if said.bundle and not before.bundle:
                self._keep(replica, slot, said)
            return []
        if before is not None and self._holds(before):
            return self._two_replies(before, said)
        self._keep(replica, slot, said)
        return self._wrong_replies(slot)

    def receipt(self, session: int, seq: int) -> Receipt | None:
        """A receipt for a slot, as soon as enough is here; of the latest epoch in which enough was said."""
        for epoch in range(self._chain.configuration.epoch, -1, -1):
            found = self._receipt((epoch, session, seq))
            if found is not None:
                return found
        return None

    def _receipt(self, slot: Slot) -> Receipt | None:
        epoch, session, seq = slot
        weak = self._weak(epoch)
        for equal in self._groups(slot):
            bundles = [said.bundle for said in equal if said.bundle and self._hashes(said)]
            if len(equal) < weak or not bundles:
                continue
            signers = [said for said in equal if self._holds(said)][:weak]
            if len(signers) == weak:
                return Receipt(
                    cluster=self._cluster.id,
                    epoch=epoch,
                    client=self._client,
                    session=session,
                    seq=seq,
                    bundle=bundles[0],
                    statements=tuple(Endorsement(said.signed.sender, said.signed.signature) for said in signers),
                    links=self._chain.links[:epoch],
                )
        return None

    def _keep(self, replica: int, slot: Slot, said: _Said) -> None:
        kept = self._said[replica]
        before = kept.pop(slot, None)
        self._bytes[replica] += len(said.bundle) - (len(before.bundle) if before is not None else 0)
        kept[slot] = said
        while len(kept) > SLOTS_KEPT_MAX or (self._bytes[replica] > BYTES_KEPT_MAX and len(kept) > 1):
            self._bytes[replica] -= len(kept.pop(next(iter(kept))).bundle)

    def _groups(self, slot: Slot) -> list[list[_Said]]:
        """What was said of a slot, the like together, each ascending by replica."""
        groups: dict[bytes, list[_Said]] = {}
        for replica in sorted(self._said):
            said = self._said[replica].get(slot)
            if said is not None:
                groups.setdefault(said.statement.digest, []).append(said)
        return list(groups.values())

    def _weak(self, epoch: int) -> int:
        there = self._chain.at(epoch)
        assert there is not None, "statements of epochs that are not proven are not kept"
        return there.quorums.weak

    def _in(self, epoch: int) -> MembersVerifier:
        """Checks signatures of an epoch's members."""
        there = self._chain.at(epoch)
        assert there is not None, "statements of epochs that are not proven are not kept"
        return self._members.setdefault(epoch, MembersVerifier(there, self._verifier))

    def _holds(self, said: _Said) -> bool:
        """True if the signature holds; verified once."""
        if not said.is_verified:
            signed = said.signed
            members = self._in(said.statement.epoch)
            said.is_verified = members.verify_replica(signed.sender, signed.payload, signed.signature)
            self._bogus[signed.sender] += not said.is_verified
        return said.is_verified

    def _hashes(self, said: _Said) -> bool:
        return bundle_digest(said.bundle) == said.statement.digest

    def _two_replies(self, one: _Said, other: _Said) -> list[Evidence]:
        accused = one.signed.sender
        kind = contradiction(one.signed, other.signed)
        if kind is None or not self._may_convict(accused, kind) or not self._holds(other):
            return []
        self._convicted[accused, kind] = None
        return [Evidence(accused, kind, one.signed, other.signed, links=self._chain.links[: one.statement.epoch])]

    def _wrong_replies(self, slot: Slot) -> list[Evidence]:
        """Hold what a weak quorum says against those who say something else."""
        groups = self._groups(slot)
        if len(groups) < 2:
            return []
        weak = self._weak(slot[0])
        agreed = [said for group in groups if len(group) >= weak for said in group if self._holds(said)]
        if len(agreed) < weak or len({said.statement.digest for said in agreed}) > 1:
            return []  # nobody can tell yet, or more than f lie
        witnesses = tuple(said.signed for said in agreed[:weak])
        true = agreed[0].statement
        links = self._chain.links[: slot[0]]
        found = []
        for group in groups:
            for said in group:
                accused, statement = said.signed.sender, said.statement
                is_other = statement.digest != true.digest
                if is_other and self._may_convict(accused, WRONG_REPLY) and self._holds(said):
                    self._convicted[accused, WRONG_REPLY] = None
                    found.append(Evidence(accused, WRONG_REPLY, said.signed, witnesses=witnesses, links=links))
        return found

    def _may_convict(self, accused: int, kind: str) -> bool:
        return (accused, kind) not in self._convicted
