"""Which part of the library a sample belongs to."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import bft.client.client
import bft.core.ordering
import bft.crypto.signatures
import bft.digests
import bft.engine
import bft.runtime.driver
import bft.services.null
import bft.state.executor
import bft.storage.sqlite
import bft.transport.channel
import bft.wire.admission
from benchmarks.sampler import PARTS, Sampler, part_of
from bft.digests import page_digest


@pytest.mark.interpreted("compiled modules have no source files and no frames")
@pytest.mark.parametrize(
    ("module", "part"),
    [
        (bft.crypto.signatures, "crypto"),
        (bft.digests, "crypto"),
        (bft.wire.admission, "wire"),
        (bft.core.ordering, "protocol"),
        (bft.engine, "protocol"),
        (bft.state.executor, "execution"),
        (bft.services.null, "execution"),
        (bft.transport.channel, "IO"),
        (bft.runtime.driver, "IO"),
        (bft.storage.sqlite, "IO"),
    ],
)
def test_every_part_of_a_replica_is_known(module: object, part: str) -> None:
    assert part_of(str(getattr(module, "__file__"))) == part  # noqa: B009


def test_parts_are_found_in_files_that_exist() -> None:
    """A renamed folder must not end as `other`."""
    library = Path(bft.__file__).parent
    for _, texts in PARTS:
        for text in texts:
            if text.startswith("/bft/"):
                assert (library.parent / text.strip("/")).exists(), text


@pytest.mark.interpreted("compiled modules have no frames")
def test_sampler_finds_where_the_time_goes() -> None:
    sampler = Sampler()
    page = bytes(1 << 16)
    sampler.start()
    try:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            page_digest(page)
    finally:
        sampler.stop()
    assert sampler.samples["crypto"] > 0.7 * sampler.samples.total() > 10
