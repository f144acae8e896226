"""`bft evidence`: accusations that verify with public keys alone."""

from __future__ import annotations

import stat
from pathlib import Path

import click
import msgspec
from rich.table import Table

from bft.cli.terminal import Exit, console, example, friendly, json_option, print_json
from bft.client.receipts import Receipt
from bft.config import Cluster, load_cluster
from bft.core.evidence import ASSUMES_F, EvidenceFile
from bft.core.forensics import conflicts
from bft.core.proofs import opened
from bft.core.verdict import epoch_of, verdict
from bft.crypto.signatures import Ed25519Verifier
from bft.errors import ConfigError, EvidenceError
from bft.runtime.archive import read_archive
from bft.runtime.forensics import forensics as name_culprits
from bft.storage.files import write_whole

FILE_BYTES_MAX = 64 * 1024 * 1024
"""Two messages of the largest size in base64 fit."""
SHOWN_CHARACTERS_MAX = 2000
public_option = click.option(
    "--cluster", type=click.Path(path_type=Path), required=True, help="The cluster file: public keys."
)


@click.group(
    epilog=example(
        "evidence list cluster",
        "evidence verify r3-two-prepares-v0.json --cluster cluster.toml",
        "evidence forensics cluster --cluster cluster/cluster.toml",
    )
)
def evidence() -> None:
    """Evidence of misbehaviour: list, show, verify, and find it after a fork.

    A replica keeps evidence in the folder `evidence` beside its store. A file proves by itself, to anybody who has the
    cluster's public keys, that a replica signed what no correct replica signs.
    """


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """Read a stranger's file: a regular one, of bounded length.

    Raises:
        ConfigError: it is missing, no file, or too long.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path}: is no regular file")
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > bytes_max:
        raise ConfigError(f"{path}: is longer than {bytes_max} bytes, the most that evidence can take")
    return content


def read_evidence(path: Path) -> EvidenceFile:
    """Read an evidence file.

    Raises:
        ConfigError: it is missing, too long or malformed.
    """
    try:
        return msgspec.json.decode(read_bounded(path, FILE_BYTES_MAX), type=EvidenceFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is no evidence file: {error}") from error


@evidence.command("list", epilog=example("evidence list cluster --json"))
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@json_option
@friendly
def list_evidence(folder: Path, as_json: bool) -> None:
    """List all evidence files below FOLDER."""
    found = [(path, read_evidence(path)) for path in sorted(folder.rglob("evidence/*.json"))]
    if as_json:
        print_json([{"file": str(path), "accused": item.accused, "kind": item.kind} for path, item in found])
        return
    table = Table("accused", "kind", "file")
    for path, item in found:
        table.add_row(f"r{item.accused}", item.kind, str(path))
    console().print(table if found else "no evidence")


@evidence.command(epilog=example("evidence show r3-two-prepares-v0.json"))
@click.argument("file", type=click.Path(path_type=Path))
@friendly
def show(file: Path) -> None:
    """Show what a piece of evidence says; whether it is true, `verify` tells."""
    item = read_evidence(file)
    click.echo(f"replica {item.accused} is accused of {item.kind} in cluster {item.cluster.hex()[:16]}")
    for name, signed in (("first", item.first), ("second", item.second)):
        if signed is not None:
            click.echo(f"{name}: {_short(opened(signed))}")
    if item.attachment:
        click.echo(f"attachment: {len(item.attachment)} bytes")
    if item.links:
        click.echo(f"links: {len(item.links)}, from the cluster file's replicas to later epochs")
    for signed in item.witnesses:
        click.echo(f"witness r{signed.sender}: {_short(opened(signed))}")


def _short(message: object) -> str:
    text = repr(message)
    left = len(text) - SHOWN_CHARACTERS_MAX
    return text if left <= 0 else f"{text[:SHOWN_CHARACTERS_MAX]}... ({left} characters more)"


@evidence.command(epilog=example("evidence verify r3-two-prepares-v0.json --cluster cluster/cluster.toml"))
@click.argument("file", type=click.Path(path_type=Path))
@public_option
@json_option
@friendly
def verify(file: Path, cluster: Path, as_json: bool) -> None:
    """Verify a piece of evidence offline.

    Exit code 0: it proves what it says; 1: it does not; 2: the file or the cluster file cannot be used.
    """
    config = load_cluster(cluster)
    item = read_evidence(file)
    wrong = verdict(item, config, Ed25519Verifier(config.id, config.replica_keys, config.client_keys))
    assumes_f = item.kind in ASSUMES_F
    if as_json:
        said = {"accused": item.accused, "kind": item.kind, "proven": wrong is None, "flaw": wrong}
        print_json({**said, "assumes_at_most_f": assumes_f})
    elif wrong is not None:
        click.echo(f"not proven: {wrong}")
    else:
        unless = f", unless more than {_f_of(item, config)} replicas lie" if assumes_f else ""
        click.echo(f"proven: replica {item.accused} committed {item.kind}{unless}")
    if wrong is not None:
        click.get_current_context().exit(Exit.FAILED)


def _f_of(item: EvidenceFile, config: Cluster) -> int:
    """How many liars the epoch of proven evidence bears."""
    message = opened(item.first)
    assert message is not None, "what is proven is readable"
    verifier = Ed25519Verifier(config.id, config.replica_keys, config.client_keys)
    return epoch_of(config, message.epoch, item.links, verifier).quorums.f


@evidence.command(epilog=example("evidence receipt receipt.json --cluster cluster/cluster.toml"))
@click.argument("file", type=click.Path(path_type=Path))
@public_option
@json_option
@friendly
def receipt(file: Path, cluster: Path, as_json: bool) -> None:
    """Verify a receipt offline and print the results that it proves.

    Exit code 0: it proves them, unless more than f replicas lie; 1: it proves nothing.
    """
    config = load_cluster(cluster)
    item = Receipt.from_json(read_bounded(file, FILE_BYTES_MAX))
    results = item.verify(config)
    if as_json:
        rows = [{"number": result.number, "status": result.status, "value": result.value.hex()} for result in results]
        print_json({"client": item.client.hex(), "session": item.session, "slot": item.seq, "results": rows})
        return
    signers = ", ".join(f"r{statement.replica}" for statement in item.statements)
    click.echo(f"proven by {signers}: client {item.client.hex()[:16]}, session {item.session}, slot {item.seq}")
    for result in results:
        click.echo(f"operation {result.number}: status {result.status}, value {result.value.hex()}")


@evidence.command(epilog=example("evidence forensics cluster --cluster cluster/cluster.toml --out culprits"))
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@public_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write evidence files into this folder.")
@json_option
@friendly
def forensics(folders: tuple[Path, ...], cluster: Path, out: Path | None, as_json: bool) -> None:
    """Explain a fork from the archives of replicas below FOLDERS: name at least f + 1 culprits, with evidence.

    A fork needs more than f liars. Exit code 0: no slot was decided in two ways; 1: one was, and the culprits are
    named; 3: one was, but the archives do not suffice to name them.
    """
    config = load_cluster(cluster)
    read = [read_archive(folder) for folder in folders]
    commits = [certificate for certificates, _ in read for certificate in certificates]
    new_views = [signed for _, signed_ones in read for signed in signed_ones]
    forks: list[dict[str, object]] = []
    culprits: dict[int, EvidenceFile] = {}
    for first, second in conflicts(commits):
        try:
            named = name_culprits(first, second, new_views, config)
        except EvidenceError as error:
            forks.append({"slot": first.seq, "culprits": None, "why": str(error)})
            continue
        forks.append({"slot": first.seq, "culprits": [item.accused for item in named], "why": ""})
        for item in named:
            culprits.setdefault(item.accused, item)
    files = [_write(out, culprits[accused]) for accused in sorted(culprits)] if out is not None else []
    if as_json:
        said = {"certificates": len(commits), "new_views": len(new_views), "forks": forks}
        print_json({**said, "culprits": sorted(culprits), "files": [str(path) for path in files]})
    else:
        _tell(len(commits), len(new_views), forks, culprits, files)
    if forks:
        click.get_current_context().exit(Exit.FAILED if culprits else Exit.UNKNOWN)


def _tell(
    commits: int, new_views: int, forks: list[dict[str, object]], culprits: dict[int, EvidenceFile], files: list[Path]
) -> None:
    click.echo(f"{commits} commit certificates and {new_views} NEW-VIEWs: {len(forks)} slots decided in two ways")
    for fork in forks:
        named = fork["culprits"]
        who = ", ".join(f"r{accused}" for accused in named) if isinstance(named, list) else f"unknown: {fork['why']}"
        click.echo(f"slot {fork['slot']}: {who}")
    for accused in sorted(culprits):
        click.echo(f"culprit: replica {accused}, by {culprits[accused].kind}")
    for path in files:
        click.echo(f"written: {path}")


def _write(folder: Path, item: EvidenceFile) -> Path:
    """Write an evidence file.

    Raises:
        ConfigError: the folder cannot be written.
    """
    path = folder / f"r{item.accused}-{item.kind}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(item))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return path
