"""Compiled code that does not belong to the present sources is refused, loudly and before it does anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.compiled import COMPILED, INTERPRETED
from bft.compiled import LIBRARY, PACKAGE, RECORD, SUFFIX, compiled_modules, require_fresh, write_record

SOURCES = ["a.py", "core/b.py"]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """As `make compiled` leaves it, with empty extensions."""
    (tmp_path / "core").mkdir()
    for source in SOURCES:
        (tmp_path / source).write_text(f"NAME = {source!r}\n")
        (tmp_path / source).with_suffix(SUFFIX).touch()
    (tmp_path / (LIBRARY + SUFFIX)).touch()
    write_record(SOURCES, tmp_path)
    return tmp_path


def test_what_was_compiled_from_the_present_sources_is_accepted(package: Path) -> None:
    require_fresh(package)
    assert compiled_modules(package) == SOURCES


def test_source_that_changed_is_named(package: Path) -> None:
    (package / "core/b.py").write_text("NAME = 'another'\n")
    with pytest.raises(ImportError, match=r"other sources than the present ones: core/b\.py: `make compiled`"):
        require_fresh(package)


def test_source_that_is_gone_is_an_error(package: Path) -> None:
    (package / "a.py").unlink()
    with pytest.raises(ImportError, match=r"a\.py"):
        require_fresh(package)


@pytest.mark.parametrize("name", ["core/c", "core/b"])
def test_extension_that_is_not_the_recorded_one_is_named(package: Path, name: str) -> None:
    """One too many, of an earlier list of modules, or one too few: the library would run beside the source."""
    extension = package / f"{name}{SUFFIX}"
    extension.unlink() if extension.exists() else extension.touch()
    with pytest.raises(ImportError, match=f"present ones: {name}\\.py"):
        require_fresh(package)


@pytest.mark.parametrize("content", [None, "", "[", "[]"])
def test_extensions_without_a_record_are_refused(package: Path, content: str | None) -> None:
    if content is None:
        (package / RECORD).unlink()
    else:
        (package / RECORD).write_text(content)
    with pytest.raises(ImportError, match="cannot be told"):
        require_fresh(package)


def test_without_the_library_there_is_nothing_to_check(tmp_path: Path) -> None:
    """The pure package, and one for another interpreter: no record is read."""
    (tmp_path / "a.py").touch()
    (tmp_path / f"{LIBRARY}.cpython-01.so").touch()
    require_fresh(tmp_path)
    assert compiled_modules(tmp_path) == []


def test_every_module_that_is_compiled_exists_and_none_is_excluded_as_well() -> None:
    compiled = {f"{folder}/{name}".lstrip("/") for folder, names in COMPILED.items() for name in names.split()}
    excluded = {name for names in INTERPRETED.values() for name in names.split()}
    assert not compiled & excluded
    assert [name for name in sorted(compiled | excluded) if not (PACKAGE / f"{name}.py").exists()] == []
