"""One replica process of a benchmark: `python -m benchmarks.replica replica.toml [--sampled]`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from benchmarks.sampler import Sampler
from bft.config import load_cluster, load_local
from bft.runtime.server import serve

SAMPLED = "--sampled"


def main() -> None:
    """Run until terminated; with `--sampled`, write then where the processor's time went since SIGUSR1."""
    path = Path(sys.argv[1])
    local = load_local(path)
    cluster = load_cluster(Path(local.cluster))
    if SAMPLED not in sys.argv[2:]:
        serve(cluster, local)
        return
    sampler = Sampler()
    signal.signal(signal.SIGUSR1, lambda number, frame: sampler.start())
    try:
        serve(cluster, local)
    finally:
        sampler.stop()
        sampler.write(path.with_suffix(".samples.json"))


if __name__ == "__main__":
    main()
