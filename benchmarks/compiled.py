"""`make compiled`: the hot path as extension modules, made by mypyc from the sources that lie beside them.

The modules of `COMPILED` become one library, within which calls, attributes and integers are those of C; Python finds a
module's extension before its source. The rest stays interpreted, and so does everything unless somebody asks: nothing
needs a compiler. `bft.compiled` refuses to import what was compiled from other sources than the present ones.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sysconfig
import tempfile
import time
from pathlib import Path

from bft.compiled import LIBRARY, PACKAGE, RECORD, SUFFIX, write_record

COMPILED = {
    "": "digests engine epochs ids membership",
    "client": "inbox links reads refusals session tally window witness",
    "core": "amnesia budget checkpoint clients execution forensics log monitor newview ordering pool proofs queries"
    " reconfig recovery repair replica requests rot session shares sources state transfer verdict viewchange",
    "crypto": "signatures",
    "runtime": "archive client_reader clock driver lane links quota",
    "transport": "channel frames poller",
    "wire": "admission codec",
}
"""Folder of the package -> its compiled modules."""
INTERPRETED = {
    "mypyc loses the keywords of a msgspec.Struct (array_like, tag), and with them its encoding": "config core/evidence"
    " core/tablepages client/receipts client/seam events headers messages signing/frames",
    "compiled code checks types, and what a service hands over must be taken alike everywhere": "services/interface"
    " services/machine services/null services/outcome services/service state/context state/encoding state/executor"
    " state/map state/pages",
    "an asynchronous generator, which mypyc does not know": "client/client",
    "seldom called, or their time is that of C already": "runtime/server runtime/stats storage/memory storage/sqlite"
    " transport/handshake",
}
"""Why a module near the hot path is not compiled -> such modules."""


def main() -> None:
    """Compile in a folder of its own, and put beside the sources what came out."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        raise SystemExit(f"make compiled: there is no C compiler {compiler!r} (install one, or name yours in CC)")
    from mypyc.build import mypycify
    from setuptools import Distribution

    started = time.monotonic()
    sources = [f"{folder}/{name}.py".lstrip("/") for folder, names in COMPILED.items() for name in names.split()]
    with tempfile.TemporaryDirectory(prefix="bft-compiled-") as name, contextlib.chdir(name):
        shutil.copytree(PACKAGE, PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        paths = [f"{PACKAGE.name}/{source}" for source in sources]
        group = f"{PACKAGE.name}.{LIBRARY.removesuffix('__mypyc')}"
        extensions = mypycify(["--config-file=", *paths], opt_level="3", debug_level="0", group_name=group)
        command = Distribution({"name": PACKAGE.name, "ext_modules": extensions}).get_command_obj("build_ext")
        command.inplace = True
        command.ensure_finalized()
        command.run()
        write_record(sources, Path(PACKAGE.name))
        for made in [*Path(PACKAGE.name).rglob(f"*{SUFFIX}"), Path(PACKAGE.name, RECORD)]:
            shutil.copy(made, PACKAGE.parent / made)
    print(*sources, sep="\n")
    print(f"{len(sources)} modules compiled in {time.monotonic() - started:.0f} s; `make pure` removes them")


if __name__ == "__main__":
    main()
