"""Who is let in besides members and clients: vouched-for newcomers; and what strangers are told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from bft.crypto.keys import KeyPair
from bft.errors import TransportError
from bft.ids import ReplicaId
from bft.messages import EpochLink
from bft.transport.channel import Channel
from bft.transport.dial import ask_for_links, dial
from bft.transport.handshake import Host, Identity, Voucher, WrongIdentity, vouch
from tests.unit.test_epochs import Town
from tests.unit.transport import rig

ADMIN = rig.key("admin")
NEWCOMER = rig.key("newcomer")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = rig.make_host(tmp_path)
    host.vouching = frozenset({ADMIN.public})
    return host


async def knock(it: rig.Rig, replica: int, keys: KeyPair, voucher: Voucher | None, server_key: bytes | None = None):
    return await dial(
        "127.0.0.1",
        it.port,
        server=ReplicaId(0),
        server_key=server_key or rig.KEYS[0].public,
        identity=Identity(rig.CLUSTER, ReplicaId(replica), keys, voucher),
    )


async def test_newcomer_is_let_in_under_its_name_by_an_administrators_voucher(host: Host) -> None:
    """It is handed over as that replica, with the key that it has proven."""
    async with rig.open_rig(host) as it:
        channel = await knock(it, 7, NEWCOMER, vouch(rig.CLUSTER, 7, NEWCOMER.public, ADMIN))
        await rig.until(lambda: bool(it.channels))
        ((peer, served),) = it.channels
        assert (peer, served.proven) == (7, NEWCOMER.public)
        channel.close()


async def test_id_that_was_removed_is_let_in_by_nobodys_word(host: Host) -> None:
    """An administrator's old voucher lies about for ever, and ids are never used again."""
    voucher = vouch(rig.CLUSTER, 7, NEWCOMER.public, ADMIN)
    async with rig.open_rig(host) as it:
        channel = await knock(it, 7, NEWCOMER, voucher)
        channel.close()
        host.former = frozenset({7})
        with pytest.raises(WrongIdentity, match="unknown key"):
            await knock(it, 7, NEWCOMER, voucher)


async def test_member_may_vouch_for_its_own_next_key_only(host: Host) -> None:
    """Its former key lets a returning replica in under its own id; a member has no word for others."""
    async with rig.open_rig(host) as it:
        channel = await knock(it, 2, NEWCOMER, vouch(rig.CLUSTER, 2, NEWCOMER.public, rig.KEYS[2]))
        channel.close()
        with pytest.raises(WrongIdentity, match="unknown key"):
            await knock(it, 3, NEWCOMER, vouch(rig.CLUSTER, 3, NEWCOMER.public, rig.KEYS[2]))
        with pytest.raises(WrongIdentity, match="unknown key"):
            await knock(it, 7, NEWCOMER, vouch(rig.CLUSTER, 7, NEWCOMER.public, rig.KEYS[2]))


@pytest.mark.parametrize(
    "voucher",
    [
        vouch(rig.CLUSTER, 8, NEWCOMER.public, ADMIN),
        vouch(b"x" * 32, 7, NEWCOMER.public, ADMIN),
        vouch(rig.CLUSTER, 7, rig.ALICE.public, ADMIN),
        vouch(rig.CLUSTER, 7, NEWCOMER.public, rig.ALICE),
        Voucher(ADMIN.public, bytes(64)),
        Voucher(bytes(32), bytes(64)),
        None,
    ],
    ids=["other-id", "other-cluster", "other-key", "no-administrator", "no-signature", "no-key", "none"],
)
async def test_voucher_is_good_for_one_id_key_and_cluster(host: Host, voucher: Voucher | None) -> None:
    """Whatever else is shown, the newcomer stays outside, and others are still served."""
    async with rig.open_rig(host) as it:
        with pytest.raises(WrongIdentity, match="unknown key"):
            await knock(it, 7, NEWCOMER, voucher)
        await it.assert_serves()


async def test_voucher_without_its_key_is_worth_nothing(host: Host) -> None:
    """Vouchers are no secrets: who shows one must hold the key that it names."""
    voucher = vouch(rig.CLUSTER, 7, NEWCOMER.public, ADMIN)

    class Liar(KeyPair):
        def sign(self, data: bytes) -> bytes:
            return rig.ALICE.sign(data)

    async with rig.open_rig(host) as it:
        with pytest.raises(WrongIdentity, match="does not verify"):
            await knock(it, 7, Liar(NEWCOMER.seed, NEWCOMER.public), voucher)


async def test_stranger_is_told_the_links_and_nothing_else(host: Host) -> None:
    """Without a name and without a signature; the connection ends, and no handler has seen it."""
    town = Town()
    change = town.change(0, 1, 2, 3, 4)
    links = [town.link(town.genesis, change, 24)] * 16
    asked: list[int] = []

    def answer(epoch: int) -> Sequence[EpochLink]:
        asked.append(epoch)
        return links if epoch == 3 else ()

    host.links = answer
    async with rig.open_rig(host) as it:
        assert await ask_for_links("127.0.0.1", it.port, rig.CLUSTER, 3) == tuple(links)
        assert await ask_for_links("127.0.0.1", it.port, rig.CLUSTER, 9) == ()
        assert asked == [3, 9]
        with pytest.raises(TransportError, match="runs cluster"):
            await ask_for_links("127.0.0.1", it.port, b"y" * 32, 3)
        await rig.until(lambda: it.listener.strangers == 0)
        assert it.channels == []
        assert (it.listener.visits, it.listener.refused["handshake"]) == (2, 1)
        await it.assert_serves()


async def test_asker_that_does_not_leave_is_put_out(host: Host) -> None:
    """The links are shown within the handshake's deadline, however slowly they are taken."""
    async with rig.open_rig(host, handshake_seconds=0.2) as it:
        held: list[Channel] = []

        async def hold() -> None:
            from bft.crypto.tls import dialer_context
            from bft.transport.handshake import WhoAreYou
            from bft.wire.codec import encode

            sock = it.plain()
            sock.setblocking(False)
            channel = Channel(sock, dialer_context(), server_side=False, frame_bytes_max=1 << 20)
            held.append(channel)
            await channel.handshake()
            await channel.receive_one()
            channel.send([encode(WhoAreYou(0))])

        await hold()
        await rig.until(lambda: it.listener.refused["too-slow"] == 1)
        held[0].close()


async def test_epoch_changes_who_is_let_in_without_a_new_listener(host: Host, tmp_path: Path) -> None:
    """A key that was good is not any more, and the server shows its own new one."""
    from bft.crypto.keys import save_key
    from bft.crypto.signatures import Ed25519Verifier
    from bft.crypto.tls import server_context

    async with rig.open_rig(host) as it:
        (await knock(it, 2, rig.KEYS[2], None)).close()
        own = rig.key("the next key of replica 0")
        save_key(tmp_path / "next.pem", own)
        host.verifier = Ed25519Verifier(rig.CLUSTER, {0: own.public, 2: NEWCOMER.public}, None)
        host.context = server_context(own, tmp_path / "next.pem", "r0")
        with pytest.raises(WrongIdentity, match="shows key"):
            await knock(it, 2, NEWCOMER, None)
        with pytest.raises(WrongIdentity, match="does not verify"):
            await knock(it, 2, rig.KEYS[2], None, own.public)
        channel = await knock(it, 2, NEWCOMER, None, own.public)
        channel.close()
        await anyio.sleep(0)
