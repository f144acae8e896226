"""Every command explains itself, and refuses nonsense in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bft.cli.call import parse_argument
from bft.cli.commands import COMMANDS, cli
from bft.cli.kv_load import parse_records
from bft.cli.main import INTERRUPTED
from bft.cli.terminal import Exit
from bft.config import Protocol
from bft.errors import ConfigError


def _groups(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Group]]:
    if isinstance(command, click.Group):
        yield path, command
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name
            yield from _groups(found, (*path, name))


def _leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name
            yield from _leaves(found, (*path, name))
    else:
        yield path, command


OURS = [name for name in COMMANDS if name not in ("campaign", "generals")]


def test_every_command_has_help_and_an_example() -> None:
    """A command without an example is a command that nobody finds out how to use."""
    context = click.Context(cli)
    for name in OURS:
        group = cli.get_command(context, name)
        assert group is not None
        for path, command in _leaves(group, (name,)):
            assert command.help, path
            assert command.epilog and f"bft {' '.join(path)}" in command.epilog, path
            for parameter in command.params:
                assert isinstance(parameter, click.Argument) or getattr(parameter, "help", None), (path, parameter.name)


def test_every_group_has_an_example() -> None:
    """Where to begin is shown before anybody has read what all its commands are."""
    for path, group in _groups(cli, ()):
        if path != ("generals",):
            assert group.epilog and f"bft {' '.join(path)}".strip() in group.epilog, path


def test_help_lists_every_group_without_importing_it() -> None:
    """`bft --help` works even where a group's module is broken or absent."""
    shown = CliRunner().invoke(cli, ["--help"])
    assert shown.exit_code == 0
    assert all(f"  {name} " in shown.output for name in COMMANDS)


def test_interrupt_while_modules_are_imported_is_quiet() -> None:
    """That is what takes most of the first third of a second."""
    program = """
import signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "click":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from bft.cli.main import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (INTERRUPTED, b"", b"")
    assert INTERRUPTED == Exit.INTERRUPTED


def test_keys_new_writes_a_private_file_that_keys_show_reads(tmp_path: Path) -> None:
    """The public half is printed; the file has mode 0600 and is never overwritten."""
    runner = CliRunner()
    made = runner.invoke(cli, ["keys", "new", "alice", "--dir", str(tmp_path), "--json"])
    assert made.exit_code == 0, made.output
    public = json.loads(made.output)["public"]
    path = tmp_path / "alice.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    shown = runner.invoke(cli, ["keys", "show", str(path)])
    assert public in shown.output
    again = runner.invoke(cli, ["keys", "new", "alice", "--dir", str(tmp_path)])
    assert again.exit_code == Exit.USAGE
    assert "never overwritten" in again.output


def test_keys_show_asks_for_the_passphrase_of_an_encrypted_file(tmp_path: Path) -> None:
    """The passphrase comes from a prompt or from the environment; a wrong one is an error of use."""
    runner = CliRunner()
    made = runner.invoke(cli, ["keys", "new", "bob", "--dir", str(tmp_path), "--passphrase"], input="pw\npw\n")
    assert made.exit_code == 0, made.output
    path = str(tmp_path / "bob.pem")
    assert runner.invoke(cli, ["keys", "show", path], input="pw\n").exit_code == 0
    unasked = runner.invoke(cli, ["keys", "show", path], input="")
    assert (unasked.exit_code, "BFT_PASSPHRASE" in unasked.output) == (Exit.USAGE, True), unasked.output
    assert runner.invoke(cli, ["keys", "show", path], env={"BFT_PASSPHRASE": "pw"}).exit_code == 0
    assert runner.invoke(cli, ["keys", "show", path], env={"BFT_PASSPHRASE": "no"}).exit_code == Exit.USAGE


@pytest.mark.parametrize("name", ["", "a/b", "../x", "x" * 65])
def test_keys_new_refuses_names_that_are_no_file_names(tmp_path: Path, name: str) -> None:
    """A key's name becomes a file's name."""
    made = CliRunner().invoke(cli, ["keys", "new", name, "--dir", str(tmp_path)])
    assert made.exit_code == Exit.USAGE
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--n", "3"], "a cluster has 4 to"),
        (["--set", "window=1000"], "multiple of checkpoint_interval"),
        (["--set", "window=x"], "are integers"),
        (["--set", "windows=256"], "windows"),
        (["--set", "window"], "expected NAME=VALUE"),
        (["--host", "a", "--host", "b"], "once per replica"),
        (["--host", "bad host!"], "replica[0].host is 'bad host!': it must be an IPv4 or IPv6 address"),
        (["--host", "-"], "replica[0].host is '-'"),
        (["--base-port", "65534"], "65535"),
        (["--name", "two words"], "$.name"),
        (["--client", "alice=nowhere.pem"], "no such key file"),
    ],
)
def test_cluster_init_refuses_what_breaks_a_rule_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], part: str
) -> None:
    """A cluster that could not be loaded is not written, and no key is left behind."""
    folder = tmp_path / "cluster"
    made = CliRunner().invoke(cli, ["cluster", "init", "--dir", str(folder), *arguments])
    assert made.exit_code == Exit.USAGE, made.output
    assert part in " ".join(made.output.split())
    assert not folder.exists() or not list(folder.iterdir())


def test_cluster_init_names_the_protocol_parameters() -> None:
    """Nobody has to read the source to find out what `--set` takes."""
    shown = CliRunner().invoke(cli, ["cluster", "init", "--help"]).output
    assert all(name in shown.split("--set", 1)[1] for name in Protocol.__struct_fields__)


def test_replica_run_refuses_an_expression_that_is_no_strategy(tmp_path: Path) -> None:
    """The error names the crimes that exist."""
    runner = CliRunner()
    assert runner.invoke(cli, ["cluster", "init", "--dir", str(tmp_path / "c")]).exit_code == 0
    config = str(tmp_path / "c" / "r0" / "replica.toml")
    ended = runner.invoke(cli, ["replica", "run", config, "--adversary", "be_evil()"])
    assert ended.exit_code == Exit.USAGE
    assert "no crime or condition named 'be_evil'" in ended.output


def test_call_refuses_unknown_methods_and_wrong_arguments(tmp_path: Path) -> None:
    """What cannot fit is refused before anything is sent."""
    runner = CliRunner()
    assert runner.invoke(cli, ["cluster", "init", "--dir", str(tmp_path / "c")]).exit_code == 0
    where = ["--cluster", str(tmp_path / "c" / "cluster.toml")]
    unknown = runner.invoke(cli, ["call", "fly", *where])
    assert unknown.exit_code == Exit.USAGE
    assert "no method 'fly'; it has" in unknown.output
    few = runner.invoke(cli, ["call", "put", "a", *where])
    assert few.exit_code == Exit.USAGE
    assert "put" in few.output and "value" in few.output
    typed = runner.invoke(cli, ["call", "put", "a", "5", *where])
    assert typed.exit_code == Exit.USAGE and "put(key: str, value: str): Expected `str`, got `int`" in typed.output
    weak = runner.invoke(cli, ["call", "put", "a", "b", "--weak", *where])
    assert weak.exit_code == Exit.USAGE and "put is a command" in weak.output
    nowhere = runner.invoke(cli, ["call", "put", "a", "b", "--receipt", str(tmp_path / "no" / "r.json"), *where])
    assert nowhere.exit_code == Exit.USAGE and "r.json: cannot be written" in " ".join(nowhere.output.split())


def test_crash_point_that_is_never_reached_is_wrong_usage() -> None:
    """A run without a stop would pass for one that has survived it."""
    for point, part in (
        ("ordering/kill/1/0/99999999", "is never reached: replica 0 has boundaries 1 to"),
        ("ordering/kill/1/9/1", "no replica 9 that could stop"),
        ("view-change/kill/1/0/1", "no replica 0 that could stop"),
        ("ordering/kill/1/0/0", "is never reached"),
        ("ordering/kill/1/0/-1", "is never reached"),
        ("nowhere/kill/1/0/1", "no family"),
        ("ordering/sleep/1/0/1", "no way to stop"),
    ):
        ended = CliRunner().invoke(cli, ["campaign", "crashpoints", "--point", point])
        assert (ended.exit_code, part in " ".join(ended.output.split())) == (Exit.USAGE, True), ended.output


def test_deeply_nested_arguments_and_operations_are_told_apart(tmp_path: Path) -> None:
    """How deep a parser can follow is nobody's business: one line, exit code 2."""
    deep = "[" * 100_000 + "]" * 100_000
    file = tmp_path / "operations.jsonl"
    for line in (deep, f'["put", "a", {deep}]', f'["put", "a", "b", {deep}]'):
        file.write_text(line + "\n")
        ended = CliRunner().invoke(cli, ["check", "bft.services.kv:KeyValue", "--operations", str(file)])
        assert (ended.exit_code, "is no operation of the service" in ended.output) == (Exit.USAGE, True), ended.output
    assert parse_argument(deep) == deep
    with pytest.raises(ConfigError, match="is not JSON"):
        list(parse_records([deep], "jsonl", "file"))


def test_increment_by_more_than_64_bits_is_wrong_usage() -> None:
    """Said by the option: an operation cannot carry it."""
    ran = CliRunner().invoke(cli, ["kv", "increment", "visits", "--by", str(2**64)])
    assert ran.exit_code == Exit.USAGE and "--by" in ran.output


@pytest.mark.parametrize(
    "words",
    [
        ["kv", "get", "x", "--timeout", "nan"],
        ["check", "bft.services.kv:KeyValue", "--seconds", "nan"],
        ["cluster", "up", "--wait", "nan"],
        ["cluster", "down", "--grace", "-1"],
        ["cluster", "status", "--watch", "nan"],
        ["cluster", "status", "--watch", "inf"],
        ["cluster", "remove", "3", "--timeout", "nan"],
        ["cluster", "recover", "--settle", "-1"],
    ],
)
def test_seconds_are_numbers_that_can_be_waited(words: list[str]) -> None:
    """Not `nan`, which every bound lets through, and not less than none."""
    ran = CliRunner().invoke(cli, words)
    assert ran.exit_code == Exit.USAGE and words[-2] in ran.output, ran.output
