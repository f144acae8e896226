"""A tour of the client under asyncio: concurrent calls, order where it is asked for, reads, errors, deadlines.

bft cluster init && bft cluster up
python clients/asyncio_tour.py
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import bft
from bft.services.kv import KeyValue


async def tour(client: bft.Client, calls: int) -> None:
    """Show what a client can do; leaves nothing but keys under `tour/`."""
    kv = client.service(KeyValue)

    began = time.perf_counter()
    await asyncio.gather(*(kv.increment("tour/visits") for _ in range(calls)))
    print(f"{calls} concurrent increments in {time.perf_counter() - began:.2f} s: {await kv.get('tour/visits')}")

    ordered = kv.lane(1)  # calls of one lane execute in the order in which they are made, though nobody waits between
    await asyncio.gather(*(ordered.put("tour/last", str(number)) for number in range(100)))
    print(f"the last of 100 ordered writes: {await kv.get('tour/last')}")

    print(
        f"a weak read, which may be stale but never older than what this client saw: {await kv.weak().get('tour/last')}"
    )

    await kv.put("tour/text", "not a number")
    try:
        await kv.increment("tour/text")
    except bft.ServiceError as error:
        print(f"the service's own error: {error}")

    try:
        async with asyncio.timeout(0.0001):
            await kv.put("tour/cut", "short")
    except TimeoutError:
        print(f"a deadline passed: the write may or may not have happened; it reads {await kv.get('tour/cut')!r}")

    print(f"position of this client in the total order: {client.position}; replies outvoted: {client.disagreements}")


async def run(options: argparse.Namespace) -> None:
    """Connect and take the tour."""
    key = options.key or options.cluster.parent / "keys" / "client.pem"
    async with bft.connect(options.cluster, key=key) as client:
        await client.wait_connected(10)
        await tour(client, options.calls)


def first_of(error: BaseException) -> BaseException:
    """The error inside the groups that task groups make of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def main() -> int:
    """Run; 0 if all went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", type=Path, default=Path("cluster/cluster.toml"), help="the cluster file")
    parser.add_argument("--key", type=Path, help="private key (default: keys/client.pem beside the cluster file)")
    parser.add_argument("--calls", type=int, default=1000, help="concurrent increments (default 1000)")
    options = parser.parse_args()
    try:
        asyncio.run(run(options))
    except (bft.BFTError, BaseExceptionGroup) as error:
        if not isinstance(first_of(error), bft.BFTError):
            raise
        print(f"error: {first_of(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
