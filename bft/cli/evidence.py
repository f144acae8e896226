"""`bft evidence`: accusations that verify with public keys alone."""

from __future__ import annotations

import json
from pathlib import Path

import click
import msgspec
from rich.table import Table

from bft.cli.terminal import console, example
from bft.config import load_cluster
from bft.core.evidence import EvidenceFile, verdict
from bft.core.proofs import opened
from bft.crypto.signatures import Ed25519Verifier
from bft.epochs import genesis
from bft.errors import ConfigError


@click.group(
    epilog=example("evidence list cluster", "evidence verify r3-two-prepares-1a2b.json --cluster cluster.toml")
)
def evidence() -> None:
    """Evidence of misbehaviour: list, show, verify.

    A replica keeps evidence in the folder `evidence` beside its store. A file proves by itself, to anybody who has the
    cluster's public keys, that a replica signed two messages which exclude each other.
    """


def read_evidence(path: Path) -> EvidenceFile:
    """Read an evidence file.

    Raises:
        ConfigError: it is missing or malformed.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=EvidenceFile)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: is no evidence file: {error}") from error


@evidence.command("list", epilog=example("evidence list cluster --json"))
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_evidence(folder: Path, as_json: bool) -> None:
    """List all evidence files below FOLDER."""
    found = [(path, read_evidence(path)) for path in sorted(folder.rglob("evidence/r*.json"))]
    if as_json:
        rows = [{"file": str(path), "accused": item.accused, "kind": item.kind} for path, item in found]
        click.echo(json.dumps(rows))
        return
    table = Table("accused", "kind", "file")
    for path, item in found:
        table.add_row(f"r{item.accused}", item.kind, str(path))
    console().print(table if found else "no evidence")


@evidence.command(epilog=example("evidence show r3-two-prepares-1a2b.json"))
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """Show what a piece of evidence says."""
    item = read_evidence(file)
    click.echo(f"replica {item.accused} is accused of {item.kind} in cluster {item.cluster.hex()[:16]}")
    for name, signed in (("first", item.first), ("second", item.second)):
        click.echo(f"{name}: {opened(signed)}")


@evidence.command(epilog=example("evidence verify r3-two-prepares-1a2b.json --cluster cluster/cluster.toml"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--cluster", type=click.Path(path_type=Path), required=True, help="The cluster file: public keys.")
def verify(file: Path, cluster: Path) -> None:
    """Verify a piece of evidence offline. Exit code 0 if it proves what it says, 1 if it does not."""
    config = load_cluster(cluster)
    item = read_evidence(file)
    wrong = verdict(item, config.id, genesis(config), Ed25519Verifier(config.id, (), None))
    if wrong is not None:
        click.echo(f"not proven: {wrong}")
        raise SystemExit(1)
    click.echo(f"proven: replica {item.accused} committed {item.kind}")
