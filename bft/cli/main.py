"""The entry point of `bft`: little enough that an interrupt while the rest is still imported is as quiet as any."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""`bft.cli.terminal.Exit.INTERRUPTED`, which is not imported yet when it is needed here."""


def main() -> None:
    """Run the command line; an interrupt is quiet."""
    try:
        from bft.cli.commands import run

        code = run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
