"""Where a process spends its processor time: samples of its own stack, taken by a timer that runs on CPU time.

The timer's signal arrives between two steps of the interpreter, so time inside an extension (a signature, a hash, a
system call) counts for the code that called it. Only the main thread is seen: with durability "memory" there is no
other.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from types import FrameType

INTERVAL_SECONDS = 0.002
PARTS = (
    ("crypto", ("/nacl/", "/bft/crypto/", "/bft/digests.py")),
    ("wire", ("/bft/wire/",)),
    ("protocol", ("/bft/core/", "/bft/engine.py")),
    ("execution", ("/bft/state/", "/bft/services/")),
    ("IO", ("/bft/transport/", "/bft/runtime/", "/bft/storage/", "/trio/", "/anyio/", "/ssl.py", "/selectors.py")),
)
"""Part -> what its files' names contain. The innermost frame that belongs to a part decides."""
OTHER = "other"


def part_of(filename: str) -> str | None:
    """The part that a source file belongs to; None if to none."""
    return next((part for part, texts in PARTS if any(text in filename for text in texts)), None)


class Sampler:
    """Counts samples by part, from `start` to `stop`.

    Attributes:
        samples: by part.
    """

    def __init__(self) -> None:
        self.samples: Counter[str] = Counter()

    def start(self) -> None:
        """Begin; must be called in the main thread."""
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def stop(self) -> None:
        """End."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)

    def write(self, path: Path) -> None:
        """Write the samples as JSON."""
        path.write_text(json.dumps(self.samples))

    def _sample(self, number: int, frame: FrameType | None) -> None:
        while frame is not None:
            part = part_of(frame.f_code.co_filename)
            if part is not None:
                self.samples[part] += 1
                return
            frame = frame.f_back
        self.samples[OTHER] += 1
