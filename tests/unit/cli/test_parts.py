"""The parts of the command line that need neither sockets nor processes of the library."""

from __future__ import annotations

import json
import os
import random
import socket
import stat
import sys
from pathlib import Path

import pytest
from rich.console import Console

from bft.adversary.live import Corruption
from bft.adversary.strategy import Corrupted
from bft.cli import ports, processes
from bft.cli.call import parse_argument
from bft.cli.demo_load import Load, read_records, unicode_records, write_records
from bft.cli.demo_verdict import compare, equal_digests, judge
from bft.cli.kv_load import parse_records
from bft.cli.layout import Plan, replica_configs, write_cluster
from bft.cli.probe import Account, front, report_in
from bft.cli.status import alarms, fitted, render, render_service, summary
from bft.cli.terminal import Exit, exit_code, friendly
from bft.config import Cluster, load_cluster, load_local
from bft.crypto.keys import KeyPair, load_key, save_key
from bft.errors import (
    BFTError,
    ConfigError,
    KeyFileError,
    OutcomeUnknown,
    ServiceError,
    SessionExpired,
    StorageError,
    TransportError,
)


def _cluster(tmp_path: Path, n: int = 4) -> Cluster:
    return write_cluster(tmp_path / f"cluster-{n}", Plan(n=n))


# --- layout -------------------------------------------------------------------------------------------------------


def test_written_cluster_can_be_loaded_and_its_keys_fit(tmp_path: Path) -> None:
    """Every replica finds its own key, and only the owner can read it."""
    folder = tmp_path / "cluster"
    cluster = write_cluster(folder, Plan(n=7, durability="process", protocol={"pipeline": 8}))
    assert cluster.quorums.f == 2 and cluster.protocol.pipeline == 8
    for replica, path in enumerate(replica_configs(folder)):
        local = load_local(path)
        assert local.id == replica and local.durability == "process"
        assert load_key(Path(local.key)).public_hex == cluster.replica[replica].key
        assert stat.S_IMODE(Path(local.key).stat().st_mode) == 0o600
    text = (folder / "cluster.toml").read_text()
    assert "PRIVATE" not in text


def test_known_enrolment_lets_in_the_made_client_and_those_named(tmp_path: Path) -> None:
    """The key that commands use by default is among the known ones."""
    alice = KeyPair.generate()
    save_key(tmp_path / "alice.pem", alice)
    folder = tmp_path / "cluster"
    cluster = write_cluster(folder, Plan(enrolment="known", clients=[("alice", tmp_path / "alice.pem")]))
    made = load_key(folder / "keys" / "client.pem")
    assert cluster.client_keys == frozenset({alice.public, made.public})


def test_cluster_is_never_written_over_another(tmp_path: Path) -> None:
    """Keys of a cluster that exists would be lost."""
    _cluster(tmp_path)
    with pytest.raises(ConfigError, match="a cluster exists here"):
        _cluster(tmp_path)


# --- errors and exit codes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (KeyFileError("x"), 2),
        (OutcomeUnknown("x"), 3),
        (SessionExpired("x"), 3),
        (ServiceError("Refused"), 1),
        (StorageError("x"), 1),
        (TransportError("x"), 1),
    ],
)
def test_exit_codes_tell_kinds_of_failure_apart(
    error: BFTError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error is one line on stderr, alone or inside the groups that task groups make."""
    assert exit_code(error) == code
    for raised in (error, ExceptionGroup("a", [ExceptionGroup("b", [error])])):

        @friendly
        def command(raised: Exception = raised) -> None:
            raise raised

        with pytest.raises(SystemExit) as ended:
            command()
        assert ended.value.code == code
        assert capsys.readouterr().err == f"error: {error}\n"


def test_interrupt_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends with 130 and says nothing."""

    @friendly
    def command() -> None:
        raise BaseExceptionGroup("nursery", [KeyboardInterrupt()])

    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == Exit.INTERRUPTED
    assert capsys.readouterr() == ("", "")


def test_bugs_keep_their_traceback() -> None:
    """An assertion is ours, whatever stands beside it: nobody may take it for a user's error."""

    @friendly
    def command() -> None:
        raise ExceptionGroup("nursery", [AssertionError("a bug"), TransportError("x")])

    with pytest.raises(ExceptionGroup):
        command()


# --- status -------------------------------------------------------------------------------------------------------


def _accounts(*executed: int | None) -> list[Account]:
    return [
        Account(index, f"host:{index}", failure="no answer")
        if number is None
        else Account(index, f"host:{index}", {"executed": number, "view": 1, "active": True, "rejected": {"x": index}})
        for index, number in enumerate(executed)
    ]


def test_lag_is_measured_against_what_a_correct_replica_claims(tmp_path: Path) -> None:
    """A liar's boast of a million slots makes nobody look behind."""
    cluster = _cluster(tmp_path)
    assert front(_accounts(100, 90, 80, 1_000_000), cluster.quorums, "executed") == 100
    assert front(_accounts(5, None, None, None), cluster.quorums, "executed") == 5
    assert front(_accounts(None, None, None, None), cluster.quorums, "executed") == 0


def test_status_shows_how_each_replica_finds_the_primary() -> None:
    """Figures of the monitor; a liar's nonsense and a silent replica's absence are dashes."""
    accounts = _accounts(100, 90, None, 100)
    accounts[0].report["monitor"] = {
        "current_p90_ms": 12.5, "theta_ms": 240.0, "skips": 3, "complaints": 1, "reason": "slow-primary",
        "operations_s": {"r0": 1234},
    }  # fmt: skip
    accounts[1].report["monitor"] = "fine, thanks"
    console = Console(width=120, record=True)
    console.print(render_service(accounts))
    rows = {line.split()[1]: line for line in console.export_text().splitlines() if line.startswith("│ r")}
    for cell in ("12.5", "240.0", "1234", "3", "slow-primary"):
        assert cell in rows["r0"]
    assert rows["r1"].count(" - ") == rows["r2"].count(" - ") == 6


def test_status_tells_a_transfer_that_does_not_come_nearer(tmp_path: Path) -> None:
    """State that changes faster than it is fetched looks like progress, page by page, and never ends."""
    accounts = _accounts(100, 90, 80, 100)
    accounts[2].report.update({"fetching": 96, "fetch": {"pages": 50, "missing": 10, "overtaken": 7}})
    console = Console(width=220, record=True)
    console.print(render(_cluster(tmp_path), accounts))
    assert "40/50 pages, which changes faster than it comes: 7 checkpoints were overtaken" in console.export_text()


def test_status_shows_whatever_a_liar_says(tmp_path: Path) -> None:
    """Markup, control characters, half characters, lists where numbers should be: the others' rows are shown."""
    odd = ["[/]", "[/x]", "\\ud800", "\\u001b[2J", "two\\nlines"]
    connections = '{"incoming": [[], {}, 1], "dialed": [1, "x"], "clients": "[/x]"}'
    answers = [
        f'{{"executed": 1, "{name}": {value}, "role": "{text}", "rejected": {{"{text}": 1}}}}'
        for text in odd
        for name in ("connections", "differs", "fetch", "monitor", "dropped")
        for value in (connections, f'["{text}"]', f'{{"{text}": 7, "reason": "{text}", "pages": 1}}', f'"{text}"')
    ]
    cluster, honest = _cluster(tmp_path), _accounts(100, 90, 80)
    for answer in answers:
        accounts = [*honest, Account(3, "host:3", report_in(answer.encode()))]
        console = Console(width=200, record=True)
        console.print(render(cluster, accounts), render_service(accounts), *alarms(accounts))
        shown = console.export_text()
        assert "r2 host:2" in shown
        shown.encode()
        assert "\x1b[2J" not in shown


def test_status_shows_who_answers_and_why_not(tmp_path: Path) -> None:
    """Plain data and table hold a row for each replica."""
    cluster = _cluster(tmp_path)
    accounts = _accounts(100, 90, None, 100)
    data = summary(cluster, accounts)
    assert data["answering"] == 3
    replicas = data["replicas"]
    assert isinstance(replicas, list)
    assert [row["lag"] for row in replicas] == [0, 10, None, 0]
    assert replicas[2]["failure"] == "no answer"
    assert render(cluster, accounts).row_count == 4


def test_status_is_whole_on_a_narrow_terminal(tmp_path: Path) -> None:
    """Rows as text instead of a table whose columns show three letters each."""
    cluster = _cluster(tmp_path)
    accounts = _accounts(1234567, 90, None, 100)
    for width, is_table in ((160, True), (80, False), (40, False)):
        console = Console(width=width, record=True)
        console.print(fitted(render(cluster, accounts), console))
        text = " ".join(console.export_text().split())
        assert ("┃" in text) is is_table and "…" not in text
        for part in (accounts[0].address, "1234567", "executed", "connections", "no answer"):
            assert part in text


# --- arguments and files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"\0",
        b"id = " + b"[" * 20_000,
        b"id = " + b"9" * 5000,
        b"id = 0x" + b"f" * 5000,
        b"a." * 5000 + b"b = 1",
    ],
)
def test_configuration_of_nonsense_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    """Whatever a file holds: the parser's own limits are no concern of whoever reads the message."""
    file = tmp_path / "replica.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=str(file)):
        load_local(file)


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        *((host, True) for host in ("localhost", "::1", "::", "0.0.0.0", "fe80::1%eth0", "::ffff:10.0.0.1")),
        *((host, True) for host in ("replica-1.example.org", "example.org.", "bft_replica_1", "4a", "a" * 63)),
        *((host, False) for host in ("bad host!", "-", "-a", "a-", "a..b", ".", ".a", "a" * 64, "[::1]", "a:1", "a/b")),
        *((host, False) for host in ("256.0.0.1", "10.0.0", "1.2.3.4.5", "::1%", "::1% x", "1.1.1.1%a", "a\n", "é")),
    ],
)
def test_host_is_a_name_or_an_address(tmp_path: Path, host: str, fits: bool) -> None:
    """In the files of the cluster and of a replica; the error names field, value and rule."""
    cluster, local = tmp_path / "cluster.toml", tmp_path / "replica.toml"
    entries = [f'[[replica]]\nid = {i}\nhost = "127.0.0.1"\nport = {7400 + i}\nkey = "{i:064x}"' for i in range(4)]
    entries[2] = entries[2].replace('"127.0.0.1"', json.dumps(host))
    cluster.write_text("\n".join(['name = "x"', *entries]))
    local.write_text(f'id = 0\ncluster = "cluster.toml"\nkey = "k"\ndata = "d"\nhost = {json.dumps(host)}')
    if fits:
        assert load_cluster(cluster).replica[2].host == load_local(local).host == host
        return
    with pytest.raises(ConfigError, match="letters, digits, - and _") as error:
        load_cluster(cluster)
    assert f"{cluster}: replica[2].host is {host!r}: it must be" in str(error.value)
    with pytest.raises(ConfigError) as error:
        load_local(local)
    assert f"{local}: host is {host!r}: it must be" in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5), ('"5"', "5"), ("hello", "hello"), ("[1, null]", [1, None]), ("", ""), ("{", "{")]
)
def test_argument_is_json_or_text(text: str, value: object) -> None:
    """What is not JSON is taken as it stands."""
    assert parse_argument(text) == value


def test_records_are_read_from_tabs_and_from_json_lines() -> None:
    """The first line decides; a value may hold tabs; empty lines are skipped."""
    assert list(parse_records(["a\t1\t2\n", "\n", "b\t\n"], "auto", "f")) == [("a", "1\t2"), ("b", "")]
    lines = ['{"key": "a", "value": "1"}\n', '["b", "2"]\n']
    assert list(parse_records(lines, "auto", "f")) == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (["a\t1", "b"], "f, line 2: found 'b', expected a key, a tab and a value"),
        (["\tx"], "f, line 1: found '\\tx': a key must not be empty"),
        (['{"key": "", "value": "x"}'], "a key must not be empty"),
        (['["a", "1"]', '{"key": "\\ud800", "value": "1"}'], "line 2: the key holds '\\ud800', half of a character"),
        (['["a", "1\\udfff"]'], "line 1: the value holds '\\udfff', half of a character"),
        (["a\t1", "k" * 2000 + "\t1"], "line 2: the key has 2000 bytes, allowed are at most 1024"),
        (["é" * 513 + "\t1"], "line 1: the key has 1026 bytes"),
        (["a\t" + "v" * 3_000_000], "line 1: the value has 3000000 bytes, allowed are at most 524288"),
        (['{"key": 5, "value": "x"}'], "expected"),
        (['["a"]'], "expected"),
        (["{"], "is not JSON"),
    ],
)
def test_malformed_records_name_file_and_line(lines: list[str], part: str) -> None:
    """Somebody has to find the line in a large file."""
    with pytest.raises(ConfigError, match="f, line") as error:
        list(parse_records(lines, "auto", "f"))
    assert part in str(error.value)


# --- processes and ports ------------------------------------------------------------------------------------------


def test_pid_file_of_somebody_elses_process_is_not_believed(tmp_path: Path) -> None:
    """A pid that the system has given to another program is never signalled."""
    process = processes.ReplicaProcess(tmp_path / "replica.toml")
    process.pid_file.write_text(f"{os.getpid()}\n")
    if sys.platform == "linux":
        assert process.pid() is None
        assert process.stop() == "was not running"
    process.pid_file.write_text("nonsense")
    assert process.pid() is None


def test_last_words_skip_lines_without_letters(tmp_path: Path) -> None:
    """The ruler under a traceback says nothing."""
    process = processes.ReplicaProcess(tmp_path / "replica.toml")
    assert process.last_words() == ""
    process.log.write_text("error: it broke\n  +------\n\n")
    assert process.last_words() == "error: it broke"


def test_reserved_ports_are_free_and_given_once() -> None:
    """Two clusters of one machine get different ports."""
    first, second = ports.reserve_ports(4), ports.reserve_ports(4)
    assert abs(first - second) >= 4
    with socket.create_server(("127.0.0.1", first)):
        assert not ports.is_free("127.0.0.1", first)
        assert ports.is_free("127.0.0.1", second)


# --- adversary ----------------------------------------------------------------------------------------------------


class _Honest:
    """A node that is only wrapped here."""

    def step(self, event: object, now: int, /) -> list[object]:
        return []

    def wants(self, peer: object, packet: object, message: object, /) -> bool:
        return False


class _Signer:
    def sign(self, payload: bytes, /) -> bytes:
        return bytes(64)


def test_corruption_wraps_a_node_and_holds_no_key_but_its_own() -> None:
    """The wrapper is named by its expression, which the replica's account shows."""
    signer = _Signer()
    corruption = Corruption("wrong_reply() & equivocate() & forge()", 3, 4, random.Random(1))
    assert corruption.__name__ == "wrong_reply() & equivocate() & forge()"
    node = corruption(_Honest(), signer)  # type: ignore[arg-type]
    assert isinstance(node, Corrupted)
    assert node.context.me == 3
    assert node.context.coalition.signers == {3: signer}


def test_corruption_refuses_what_is_no_strategy() -> None:
    """A condition alone commits no crime."""
    with pytest.raises(ConfigError, match="only a condition"):
        Corruption('to("odd")', 3, 4, random.Random(1))


# --- demo ---------------------------------------------------------------------------------------------------------


def test_demo_data_are_many_and_come_back_from_their_file(tmp_path: Path) -> None:
    """More than 20 000 records, distinct, in order of key."""
    count = write_records(tmp_path / "records.tsv")
    records = read_records(tmp_path / "records.tsv")
    assert len(records) == count > 100_000
    assert records == list(unicode_records())
    assert [key for key, _ in records] == sorted({key for key, _ in records})
    assert records[0] == ("000020", "SPACE;Zs")


def test_demo_load_goes_on_until_the_faults_are_over() -> None:
    """First the goal is the number asked for, then everything, and after the faults what was taken."""
    load = Load([("a", "1")] * 10, at_least=4)
    assert load.goal == 4
    load.latencies = [0.1] * 5
    load.taken = 6
    assert load.goal == 10
    load.taken = 12
    assert load.goal == 12 and len(load.stored) == 10
    load.taken = 6
    load.released = True
    assert load.goal == 6 and len(load.stored) == 6


def test_comparison_counts_lost_wrong_and_invented_records() -> None:
    """Each kind of damage has its own number."""
    stored = [("a", "1"), ("b", "2"), ("c", "3")]
    assert compare(stored, {"a": "1", "b": "2", "c": "3"}) == compare(stored, dict(stored))
    damage = compare(stored, {"a": "1", "b": "x", "z": "0"})
    assert (damage.lost, damage.wrong, damage.extra) == (1, 1, 1)


def test_digests_are_equal_only_if_all_replicas_say_so() -> None:
    """A replica that does not answer, or stands elsewhere, is no proof."""
    same = {"stable": 8, "state_digest": "d", "executed": 9, "chain": "c"}
    accounts = [Account(replica, "x", same) for replica in range(4)]
    assert equal_digests(accounts, 4)
    assert not equal_digests(accounts[:3], 4)
    assert not equal_digests([*accounts[:3], Account(3, "x", failure="gone")], 4)
    assert not equal_digests([*accounts[:3], Account(3, "x", {**same, "state_digest": "e"})], 4)


@pytest.mark.parametrize(
    "change",
    [
        {"records_lost": 1},
        {"records_wrong": 1},
        {"records_extra": 1},
        {"lies_outvoted": 0},
        {"honest_replies_outvoted": 1},
        {"view_changes": 0},
        {"digests_equal": False},
        {"steps": []},
        {"steps": [{"records_stored": 100}] * 4},
    ],
)
def test_verdict_fails_when_anything_did_not_hold(change: dict[str, object]) -> None:
    """Every claim of the verdict can fail."""
    good: dict[str, object] = {
        "operations": 100,
        "records_lost": 0,
        "records_wrong": 0,
        "records_extra": 0,
        "lies_outvoted": 5,
        "honest_replies_outvoted": 0,
        "view_changes": 1,
        "digests_equal": True,
        "steps": [{"records_stored": 50}] * 4,
    }
    assert all(judge(good).values())
    assert not all(judge({**good, **change}).values())
