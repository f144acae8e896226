"""`bft cluster add | remove | replace | submit | invite | members`: change who the replicas are, while they serve."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from bft.cli.change import Change, load_approvals, require_sound
from bft.cli.desk import Desk, with_desk
from bft.cli.layout import add_replica, key_path, replica_configs
from bft.cli.processes import ReplicaProcess
from bft.cli.standing import discover, local_member
from bft.cli.terminal import (
    cluster_option,
    default_key,
    example,
    friendly,
    json_option,
    key_option,
    passphrase_from_environment,
    print_json,
    warn,
)
from bft.config import Durability, load_cluster, load_local, require_host
from bft.crypto.keys import KeyPair, load_key
from bft.epochs import Configuration
from bft.errors import ConfigError
from bft.headers import Member
from bft.ids import KEY_BYTES, REPLICA_ID_MAX
from bft.membership import REPLICAS_MIN
from bft.runtime.joining import save_voucher
from bft.runtime.own_keys import VOUCHER, beside
from bft.transport.discovery import KnownChain, chain_file, save_links
from bft.transport.handshake import vouch


def _parsed_members(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[Member]:
    return [_parsed_member(value) for value in values]


def _parsed_member(value: str) -> Member:
    name, _, rest = value.partition("=")
    address, _, key = rest.partition("=")
    host, _, port = address.rpartition(":")
    try:
        tree = [int(name.removeprefix("r")), bytes.fromhex(key), host.strip("[]"), int(port)]
        member = msgspec.convert(tree, Member)
    except (ValueError, msgspec.ValidationError):
        raise click.BadParameter(f"found {value!r}, expected ID=HOST:PORT=KEY with the key as 64 hex digits") from None
    return msgspec.structs.replace(member, host=_checked_host(member.host))


def _checked_host(host: str) -> str:
    """Refuse a host before it stands in a file: one that cannot be loaded would keep a whole folder from use."""
    try:
        require_host("host", host)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return host


def newcomer_options(function: click.decorators.FC) -> click.decorators.FC:
    """Options that say who joins."""
    for option in (
        click.option(
            "--host",
            default="127.0.0.1",
            show_default=True,
            callback=lambda context, parameter, host: _checked_host(host),
            help="Address of those that are made here.",
        ),
        click.option("--base-port", type=int, help="Port of the first.  [default: the highest port so far + 1]"),
        click.option(
            "--durability",
            type=click.Choice(["power", "process", "memory"]),
            default="power",
            show_default=True,
            help="What the newcomers' stores survive.",
        ),
        click.option(
            "--member",
            "remote",
            multiple=True,
            callback=_parsed_members,
            metavar="ID=HOST:PORT=KEY",
            help="A newcomer on another machine, which listens there already (bft cluster invite).",
        ),
    ):
        function = option(function)
    return function


@click.command(
    "add",
    epilog=example(
        "cluster add --count 3",
        "cluster add --member 4=10.0.0.5:7400=9f3c... --admin keys/alice.pem --admin keys/bob.pem",
        "cluster add --count 3 --sign-only add.json && bft cluster submit --approval add.json --admin keys/bob.pem",
    ),
)
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many join.")
@newcomer_options
@with_desk
def add(desk: Desk, count: int, host: str, base_port: int | None, durability: Durability, remote: list[Member]) -> None:
    """Add replicas, of this machine or of others.

    Here: makes keys and files, starts processes, waits until they hold the cluster's state and say so, has the change
    ordered, and waits until it is in effect. Nothing is interrupted; f grows with every third replica.
    """
    chain = desk.known()
    admins = desk.admins()
    joining = remote or _make_newcomers(desk, chain, admins[0], count, (host, base_port), durability)
    approvals = desk.signed(Change.to(chain.configuration, [*chain.configuration.members, *joining]), admins)
    desk.conclude(approvals, extra={"added": [member.id for member in joining]})


@click.command("remove", epilog=example("cluster remove 4 5 6", "cluster remove 3 --admin keys/admin.pem --json"))
@click.argument("replicas", nargs=-1, required=True, type=int)
@with_desk
def remove(desk: Desk, replicas: tuple[int, ...]) -> None:
    """Remove replicas, by id. Their votes count no more; they stop by themselves, and erase their keys, when the others
    do not need them any longer. Their ids are never used again."""
    before = desk.known().configuration
    for replica in replicas:
        desk.require_member(before, replica)
    rest = [member for member in before.members if member.id not in replicas]
    if len(rest) < REPLICAS_MIN:
        raise ConfigError(f"{len(rest)} replicas would be left: a cluster has at least {REPLICAS_MIN}")
    desk.conclude(desk.signed(Change.to(before, rest), desk.admins()), extra={"removed": sorted(set(replicas))})


@click.command("replace", epilog=example("cluster replace 2", "cluster replace 2 --member 7=10.0.0.9:7400=9f3c..."))
@click.argument("replica", type=int)
@newcomer_options
@with_desk
def replace(
    desk: Desk, replica: int, host: str, base_port: int | None, durability: Durability, remote: list[Member]
) -> None:
    """Remove a replica and add another in its place, in one step: for a machine that is gone for good.

    One that has lost its disk but not its key comes back under its own name: bft replica rejoin.
    """
    chain = desk.known()
    before, admins = chain.configuration, desk.admins()
    desk.require_member(before, replica)
    joining = remote or _make_newcomers(desk, chain, admins[0], 1, (host, base_port), durability)
    rest = [member for member in before.members if member.id != replica]
    approvals = desk.signed(Change.to(before, [*rest, *joining]), admins)
    desk.conclude(approvals, extra={"removed": [replica], "added": [member.id for member in joining]})


@click.command("submit", epilog=example("cluster submit --approval add.json --admin keys/bob.pem"))
@click.option(
    "--approval",
    "files",
    multiple=True,
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that --sign-only wrote; several if administrators signed apart.",
)
@with_desk
def submit(desk: Desk, files: tuple[Path, ...]) -> None:
    """Submit a change that administrators have signed in files; --admin adds a signature, --sign-only only that."""
    before = desk.known().configuration
    approvals = load_approvals(files[0], before)
    for file in files:
        other = load_approvals(file, before)
        require_sound(desk.cluster, other, str(file))
        if other.change.signed_bytes != approvals.change.signed_bytes:
            raise ConfigError(f"{file}: is about another change than {files[0]} ({other.change.describe()})")
        approvals.signatures.update(other.signatures)
    for key in desk.admins() if desk.admin_files else ():
        approvals.sign(desk.cluster, key)
    at = {member.id: member.key for member in before.members if _is_rotated(approvals.change, member)}
    desk.conclude(approvals, at=at)


def _is_rotated(change: Change, member: Member) -> bool:
    """True if a member is to change its key and runs here with the present one: it shows that one until then."""
    after = next((other for other in change.members if other.id == member.id), member)
    return after.key != member.key


@click.command("invite", epilog=example("cluster invite 4 9f3c... --output r4.pem.voucher"))
@click.argument("replica", type=click.IntRange(0, REPLICA_ID_MAX))
@click.argument("public_key")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it; belongs beside the newcomer's key, as KEY.voucher.  [default: rID.pem.voucher]",
)
@with_desk
def invite(desk: Desk, replica: int, public_key: str, output: Path | None) -> None:
    """Let a replica on another machine listen before it joins: writes a voucher for its id and public key.

    There: `bft keys new r4`, a replica.toml with id, host and port, the voucher beside the key, and `bft replica run`.
    """
    before = desk.known().configuration
    if before.member(replica) is None and replica < before.next_id:
        raise ConfigError(f"id {replica} was used before: the lowest one that is free is {before.next_id}")
    try:
        key = bytes.fromhex(public_key)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"PUBLIC_KEY is {public_key!r}: a public key has {2 * KEY_BYTES} hex digits (bft keys show)")
    path = output or Path(f"r{replica}.pem{VOUCHER}")
    save_voucher(path, vouch(desk.cluster.id, replica, key, desk.admins()[0]))
    if desk.as_json:
        print_json({"file": str(path), "replica": replica, "next_id": before.next_id})
        return
    click.echo(f"{path}: lets the holder of {public_key[:16]}... listen as replica {replica}")


@click.command("members", epilog=example("cluster members", "cluster members --json"))
@cluster_option
@key_option
@json_option
@friendly
def members(cluster_file: Path, key_file: Path | None, as_json: bool) -> None:
    """Show the present epoch: its members, who may change it, and the chain that proves it from the cluster file.

    If nobody answers it is the last epoch that is known here; a note says so.
    """
    cluster = load_cluster(cluster_file)
    chain = discover(cluster, default_key(cluster_file, key_file))
    present = chain.configuration
    if cluster.admin and not chain.answered:
        warn("no member answers: this is the last epoch that is known here, there may be later ones")
    if as_json:
        print_json(_tree(present, chain))
        return
    click.echo(f"epoch {present.epoch}, since slot {present.base}: n = {present.quorums.n}, f = {present.quorums.f}")
    for member in present.members:
        click.echo(f"r{member.id}  {member.host}:{member.port}  {member.key.hex()}")
    names = {bytes.fromhex(entry.key): entry.name for entry in cluster.admin}
    if names:
        click.echo(f"{present.threshold} of these may change it: {', '.join(sorted(names.values()))}")
    else:
        click.echo("nobody may change it: the cluster file names no administrators")


def _tree(present: Configuration, chain: KnownChain) -> dict[str, object]:
    return {
        "epoch": present.epoch,
        "began_after": present.base,
        "n": present.quorums.n,
        "f": present.quorums.f,
        "next_id": present.next_id,
        "members": [
            {"id": member.id, "host": member.host, "port": member.port, "key": member.key.hex()}
            for member in present.members
        ],
        "admins": sorted(key.hex() for key in present.admins),
        "admin_threshold": present.threshold,
        "epochs_ended_at": [link.certificate.seq for link in chain.links],
    }


# --- newcomers ------------------------------------------------------------------------------------------------------


def _make_newcomers(
    desk: Desk,
    chain: KnownChain,
    admin: KeyPair,
    count: int,
    address: tuple[str, int | None],
    durability: Durability,
) -> list[Member]:
    """Make the files of replicas that join on this machine, and start them."""
    desk.require_reachable()
    before = chain.configuration
    host, base_port = address
    ports = [member.port for member in before.members] + [load_local(c).port for c in replica_configs(desk.folder)]
    first = base_port or max(ports) + 1
    made = []
    for index in range(count):
        replica = before.next_id + index
        config = add_replica(desk.folder, replica, (host, first + index), durability)
        key = key_path(load_local(config))
        pair = load_key(key, passphrase_from_environment())
        save_voucher(beside(key, VOUCHER), vouch(desk.cluster.id, replica, pair.public, admin))
        save_links(chain_file(key, desk.cluster), chain.links)
        member = local_member(desk.cluster, config)
        process = ReplicaProcess(config)
        if process.pid() is None:
            process.start()
            desk.say(f"r{replica}: started at {member.host}:{member.port}, pid {process.pid()}, log {process.log}")
        made.append(member)
    return made
