"""`bft kv` at the command line, with a stand-in for the cluster."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from bft.cli.commands import cli
from bft.cli.connection import Target
from bft.cli.terminal import Exit


class Replicated:
    """In the place of client and service: a dictionary. `put` is interrupted when it holds `most` entries."""

    def __init__(self, entries: dict[str, str] | None = None, most: int = 1000) -> None:
        self.entries = dict(entries or {})
        self._most = most

    def service(self, kind: type) -> Replicated:
        return self

    def within(self, seconds: float) -> Replicated:
        return self

    async def size(self) -> int:
        return len(self.entries)

    async def clear(self) -> int:
        count = len(self.entries)
        self.entries.clear()
        return count

    async def scan(self, prefix: str, start: str | None, end: str | None, limit: int) -> list[tuple[str, str]]:
        return sorted(entry for entry in self.entries.items() if start is None or entry[0] >= start)

    async def put(self, key: str, value: str) -> str | None:
        if len(self.entries) == self._most:
            raise KeyboardInterrupt
        before = self.entries.get(key)
        self.entries[key] = value
        return before


@pytest.fixture
def kv(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `bft kv ...` on a stand-in."""

    def invoke(client: Replicated, *words: str, given: str | bytes | None = None) -> Result:
        def run(target: Target, body: Callable[[Any], Awaitable[object]]) -> object:
            return trio.run(body, client)

        monkeypatch.setattr(Target, "run", run)
        return CliRunner().invoke(cli, ["kv", *words], input=given)

    return invoke


def test_interrupted_load_says_how_far_it_came(kv: Callable[..., Result], tmp_path: Path) -> None:
    """What was acknowledged is stored, whatever became of the calls under way."""
    file = tmp_path / "records.tsv"
    file.write_text("".join(f"{number}\tx\n" for number in range(20)))
    ended = kv(Replicated(most=7), "load", str(file))
    assert ended.exit_code == Exit.INTERRUPTED
    assert "interrupted: 7 of 20 records are known to be stored" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.output


@pytest.mark.parametrize("standard_input", [False, True])
def test_load_checks_the_whole_file_before_it_stores_anything(
    kv: Callable[..., Result], tmp_path: Path, standard_input: bool
) -> None:
    """A flaw of the file is told with its line, and half a file is not stored."""
    for flaw in (b'{"key": "\\ud800", "value": "1"}', b'["%s", "1"]' % (b"k" * 2000), b'["", ""]', b"\xff"):
        client, file, content = Replicated(), tmp_path / "records.jsonl", b'["a", "1"]\n' + flaw + b"\n"
        file.write_bytes(content)
        ended = kv(client, "load", "-", given=content) if standard_input else kv(client, "load", str(file))
        assert (ended.exit_code, client.entries) == (Exit.USAGE, {}), ended.output
        assert "line 2" in " ".join(ended.output.split()) or flaw == b"\xff", ended.output


@pytest.mark.parametrize("standard_input", [False, True])
def test_byte_order_mark_is_no_part_of_the_first_key(
    kv: Callable[..., Result], tmp_path: Path, standard_input: bool
) -> None:
    """Editors of some systems write one."""
    client, file, content = Replicated(), tmp_path / "records.tsv", "\ufeffa\t1\nb\t\ufeff2\n".encode()
    file.write_bytes(content)
    ended = kv(client, "load", "-", given=content) if standard_input else kv(client, "load", str(file))
    assert (ended.exit_code, client.entries) == (Exit.OK, {"a": "1", "b": "\ufeff2"}), ended.output


def test_scan_shows_an_entry_a_line_whatever_it_holds(kv: Callable[..., Result]) -> None:
    """What somebody has stored ends no line and commands no terminal; as JSON it is exact."""
    stored = {"a\tb\r\nc": "\x1b[2J\u202e\u2028", "ä ö\u3000\u200cü": "C:\\new"}
    shown = kv(Replicated(stored), "scan")
    assert shown.output == "a\\tb\\r\\nc\t\\x1b[2J\\u202e\\u2028\nä ö\u3000\u200cü\tC:\\new\n"
    exact = kv(Replicated(stored), "scan", "--json")
    assert json.loads(exact.output) == [{"key": key, "value": value} for key, value in sorted(stored.items())]


def test_size_and_clear_print_a_number_or_json(kv: Callable[..., Result]) -> None:
    """As the other commands do."""
    stored = {"a": "1", "b": "2"}
    assert kv(Replicated(stored), "size").output == "2\n"
    assert json.loads(kv(Replicated(stored), "size", "--json").output) == {"size": 2}
    assert kv(Replicated(stored), "clear", "--yes").output == "2\n"
    assert json.loads(kv(Replicated(stored), "clear", "--yes", "--json").output) == {"removed": 2}


def test_clear_asks_and_names_the_option_where_nobody_answers(kv: Callable[..., Result]) -> None:
    """A script is told what it lacks; who declines has changed nothing."""
    client = Replicated({"a": "1"})
    unasked = kv(client, "clear", given="")
    assert (unasked.exit_code, "--yes" in unasked.stderr) == (Exit.USAGE, True), unasked.output
    declined = kv(client, "clear", given="n\n")
    assert (declined.exit_code != Exit.OK, "--yes" in declined.stderr, client.entries) == (True, False, {"a": "1"})
    agreed = kv(client, "clear", "--json", given="y\n")
    assert (agreed.exit_code, json.loads(agreed.stdout)) == (Exit.OK, {"removed": 1}), agreed.output
