"""What of this package runs compiled (`make compiled`), and that it was compiled from the sources that lie beside it.

An extension module hides its source: after a change of the source the old code would go on running, and nobody would
see it. So the digest of each source is recorded when it is compiled, and `import bft` compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import blake2b
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

PACKAGE = Path(__file__).parent
RECORD = "_compiled.json"
"""Path of a source within the package -> digest of what was compiled."""
LIBRARY = "_compiled__mypyc"
"""The code of all compiled modules; the extensions beside the sources only name its parts."""
SUFFIX = EXTENSION_SUFFIXES[0]
REMEDY = "`make compiled` compiles anew, `make pure` goes back to the sources"


def compiled_modules(package: Path = PACKAGE) -> list[str]:
    """Sources for which this interpreter takes an extension instead, as paths within the package."""
    found = (path for path in package.rglob(f"*{SUFFIX}") if not path.name.startswith(LIBRARY))
    return sorted(path.relative_to(package).as_posix().removesuffix(SUFFIX) + ".py" for path in found)


def write_record(sources: Iterable[str], package: Path = PACKAGE) -> None:
    """Note what was compiled."""
    digests = {source: _digest(package / source) for source in sorted(sources)}
    (package / RECORD).write_text(json.dumps(digests, indent=1) + "\n")


def require_fresh(package: Path = PACKAGE) -> None:
    """Refuse code that was compiled from something else than the present sources; costs nothing where there is none.

    Raises:
        ImportError: an extension's source has changed or is gone, or is not the one recorded.
    """
    if not (package / (LIBRARY + SUFFIX)).exists():
        return  # without the library no extension can be imported
    try:
        recorded = json.loads((package / RECORD).read_text())
        stale = {source for source, digest in recorded.items() if _digest(package / source) != digest}
        stale.update(recorded.keys() ^ compiled_modules(package))
    except (OSError, ValueError, AttributeError) as error:
        raise ImportError(f"it cannot be told what bft was compiled from ({error}): {REMEDY}") from error
    if stale:
        raise ImportError(f"compiled from other sources than the present ones: {', '.join(sorted(stale))}: {REMEDY}")


def _digest(source: Path) -> str:
    return blake2b(source.read_bytes(), digest_size=16).hexdigest()
