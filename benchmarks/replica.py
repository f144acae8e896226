"""One replica process of a benchmark: `python -m benchmarks.replica replica.toml`."""

from __future__ import annotations

import sys
from pathlib import Path

from bft.config import load_cluster, load_local
from bft.runtime.server import serve


def main() -> None:
    """Run until terminated."""
    local = load_local(Path(sys.argv[1]))
    serve(load_cluster(Path(local.cluster)), local)


if __name__ == "__main__":
    main()
