"""The `bft` command: its groups, loaded when they are used.

Importing everything would make `bft --help` and shell completion pay for trio, TLS and the simulator.
"""

from __future__ import annotations

from importlib import import_module, metadata

import click

from bft.cli.terminal import Exit, example

COMMANDS = {
    "call": ("bft.cli.call:call", "Call any method of the replicated service."),
    "campaign": ("bft.cli.campaign:campaign", "Attack simulated clusters, many seeds at a time."),
    "check": ("bft.cli.check:check", "Find out whether a service is deterministic."),
    "cluster": ("bft.cli.cluster:cluster", "Make, start, watch and stop a cluster; change its membership."),
    "demo": ("bft.cli.demo:demo", "Load real data while a replica lies and the primary is killed."),
    "evidence": ("bft.cli.evidence:evidence", "List, show and verify evidence of misbehaviour."),
    "generals": ("bft.cli.generals:generals", "Fight, search and explain the Byzantine generals."),
    "keys": ("bft.cli.keys:keys", "Make and show private keys, and rotate a replica's."),
    "kv": ("bft.cli.kv:kv", "Use the replicated key-value service."),
    "replica": ("bft.cli.replica:replica", "Run one replica in the foreground, or bring one back."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, ascending."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        try:
            command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("bft."):
                raise
            raise click.ClickException(f"`bft {cmd_name}` is not part of this installation ({error.name})") from error
        assert isinstance(command, click.Command), f"{module}:{name} is no command"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example("demo", "cluster init && bft cluster up && bft kv put greeting hello && bft kv get greeting"),
)
@click.version_option(metadata.version("bft"), prog_name="bft")
def cli() -> None:
    """Replicate a service on n = 3f + 1 replicas, of which f may crash or lie."""


def run() -> int:
    """Run the command line; returns the exit code."""
    try:
        code = cli.main(prog_name="bft", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return Exit.INTERRUPTED
    return code if isinstance(code, int) else Exit.OK
