"""Changes of membership at the command line, up to the point where a cluster would be asked."""

from __future__ import annotations

import json
import shutil
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from bft.cli.change import (
    REFUSALS,
    Activation,
    Approvals,
    Change,
    ChangeRefused,
    _beat_until,
    _is_ready,
    _refusal,
    load_approvals,
    require_sound,
    save_approvals,
)
from bft.cli.commands import cli
from bft.cli.layout import add_replica, has_left, replica_configs
from bft.cli.probe import Account
from bft.cli.returning import _change_keys, _holder, _let_vouch, _put_aside, make_key
from bft.cli.standing import standing
from bft.cli.terminal import Exit
from bft.config import load_cluster
from bft.crypto.keys import KeyPair, load_key, save_key
from bft.epochs import follow, genesis
from bft.errors import ConfigError, OutcomeUnknown, Overloaded, ServiceError
from bft.ids import ReplicaId
from bft.runtime.joining import ready_from, ready_hex
from bft.runtime.own_keys import OwnKeys
from tests.unit.test_epochs import Town

DEEP = "[" * 100_000
CORE = Path(__file__).parent.parent.parent.parent / "bft"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cluster that nobody runs, on ports that nobody has."""
    folder = tmp_path / "cluster"
    made = CliRunner().invoke(
        cli, ["cluster", "init", "--dir", str(folder), "--base-port", "2", "--admins", "2", "--admin-threshold", "2"]
    )
    assert made.exit_code == 0, made.output
    return folder


def run(*arguments: str | Path) -> tuple[int, str]:
    ended = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    return ended.exit_code, " ".join(ended.output.split())


# --- init -----------------------------------------------------------------------------------------------------------


def test_init_makes_administrators(folder: Path, tmp_path: Path) -> None:
    """Their public keys are part of the cluster's identity; one is the default, and none means no changes."""
    cluster = load_cluster(folder / "cluster.toml")
    made = {load_key(folder / "keys" / f"admin{number}.pem").public for number in (1, 2)}
    assert (cluster.admin_keys, cluster.admin_threshold) == (made, 2)
    assert run("cluster", "init", "--dir", tmp_path / "one")[0] == 0
    assert len(load_cluster(tmp_path / "one" / "cluster.toml").admin) == 1
    assert (tmp_path / "one" / "keys" / "admin.pem").exists()
    assert run("cluster", "init", "--dir", tmp_path / "none", "--admins", "0")[0] == 0
    code, said = run("cluster", "remove", "3", "--dir", tmp_path / "none")
    assert code == Exit.USAGE
    assert "has no administrators: its membership cannot change" in said


@pytest.mark.parametrize("threshold", ["0", "3"])
def test_init_refuses_a_threshold_that_cannot_be_met(tmp_path: Path, threshold: str) -> None:
    """Nothing is left behind."""
    folder = tmp_path / "cluster"
    code, said = run("cluster", "init", "--dir", folder, "--admins", "2", "--admin-threshold", threshold)
    assert code == Exit.USAGE, said
    assert "admin_threshold" in said
    assert not folder.exists() or not list(folder.iterdir())


# --- who signs ------------------------------------------------------------------------------------------------------


def test_administrators_sign_files_apart(folder: Path, tmp_path: Path) -> None:
    """Each adds a signature to the same file; nobody signs another change into it."""
    config = folder / "cluster.toml"
    cluster = load_cluster(config)
    before = genesis(cluster)
    code, said = run(
        "cluster", "replace", "3", "--member", f"4=host:7000={'ab' * 32}", "--dir", folder,
        "--admin", folder / "keys" / "admin1.pem", "--sign-only", tmp_path / "change.json",
    )  # fmt: skip
    assert (code, "signed by 1 of 2" in said) == (0, True), said
    code, said = run(
        "cluster", "submit", "--approval", tmp_path / "change.json", "--dir", folder,
        "--admin", folder / "keys" / "admin2.pem", "--sign-only", tmp_path / "change.json",
    )  # fmt: skip
    assert (code, "signed by 2 of 2" in said) == (0, True), said
    approvals = load_approvals(tmp_path / "change.json", before)
    require_sound(cluster, approvals, "here")
    approvals.require_enough()
    assert [member.id for member in approvals.change.members] == [0, 1, 2, 4]
    assert approvals.change.describe() == "epoch 0: n = 4 -> 4: add r4; remove r3"
    code, said = run(
        "cluster", "replace", "2", "--member", f"4=host:7000={'ab' * 32}", "--dir", folder,
        "--admin", folder / "keys" / "admin1.pem", "--sign-only", tmp_path / "change.json",
    )  # fmt: skip
    assert (code, "is about another change" in said) == (Exit.USAGE, True), said


def test_signature_of_somebody_else_is_found_before_it_is_submitted() -> None:
    """Nobody's time is wasted with what the cluster must refuse."""
    town = Town()
    change = Change(town.genesis, (*town.genesis.members, town.member(4)))
    approvals = Approvals(change)
    with pytest.raises(ConfigError, match="is no administrator's"):
        approvals.sign(town.cluster, town.pairs[0])
    approvals.sign(town.cluster, town.admins[0])
    with pytest.raises(ConfigError, match="1 of 2 administrators have signed"):
        approvals.require_enough()
    approvals.signatures[town.admins[1].public] = bytes(64)
    with pytest.raises(ConfigError, match="does not hold"):
        require_sound(town.cluster, approvals, "file")
    approvals.sign(town.cluster, town.admins[1])
    require_sound(town.cluster, approvals, "file")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"change": "zz", "approvals": {}}', '{"change": "", "approvals": []}', DEEP]
)
def test_file_that_is_no_approval_is_refused(tmp_path: Path, text: str) -> None:
    """With its name, and without a traceback."""
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"x\.json: is no file of approvals"):
        load_approvals(file, Town().genesis)


def test_approvals_of_another_epoch_are_refused(tmp_path: Path) -> None:
    """What was signed once is not good for ever."""
    town = Town()
    later = town.genesis
    approvals = Approvals(Change(later, (*later.members, town.member(4))))
    save_approvals(tmp_path / "x.json", approvals)
    from bft.epochs import follow

    epoch_1 = follow(town.genesis, town.link(town.genesis, town.change(0, 1, 2, 3, 4), 24))
    with pytest.raises(ConfigError, match="was signed in epoch 0, the cluster is in epoch 1"):
        load_approvals(tmp_path / "x.json", epoch_1)


def test_every_reason_of_refusal_is_explained() -> None:
    """Each string that the rules of a change return has a sentence for people."""
    text = (CORE / "epochs.py").read_text()
    rules = text[text.index("def operation_flaw") : text.index("# --- the chain")]
    reasons = {piece.split('"')[1] for piece in rules.split("return ")[1:] if piece.startswith('"')}
    assert len(reasons) > 10
    assert reasons | {"malformed", "conflict"} <= set(REFUSALS)
    refused = _refusal(ServiceError("ReconfigureRefused", "conflict"))
    assert isinstance(refused, ChangeRefused)
    assert "wait until it has taken effect" in str(refused)
    assert _refusal(ServiceError("Other", "x")).args == ServiceError("Other", "x").args


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("cluster", "remove", "9"), "replica 9 is no member of epoch 0"),
        (("cluster", "remove", "0"), "3 replicas would be left"),
        (("cluster", "replace", "7"), "replica 7 is no member"),
        (("cluster", "replace", "3", "--count", "2"), "No such option"),
        (("cluster", "add", "--member", "4=host=key"), "expected ID=HOST:PORT=KEY"),
        (("cluster", "add", "--member", f"4=a b:7404={'ab' * 32}"), "host is 'a b'"),
        (("cluster", "add", "--host", "a b"), "host is 'a b'"),
        (("cluster", "invite", "4", "abc"), "a public key has 64 hex digits"),
        (("cluster", "recover", "--every", "soon"), "expected a time such as"),
        (("cluster", "recover", "--only", "99", "--only", "2"), "replica 99 is no member that lives in"),
        (("cluster", "invite", "5000000000", "ab" * 32), "is not in the range"),
        (("cluster", "invite", "4", "ab" * 32, "--output", "/nonexistent/v"), "/nonexistent/v: cannot be written"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_done(folder: Path, arguments: tuple[str, ...], part: str) -> None:
    """One line, exit code 2."""
    code, said = run(*arguments, "--dir", folder, "--admin", folder / "keys" / "admin1.pem")
    assert (code, part in said) == (Exit.USAGE, True), said


async def test_pause_is_measured_until_the_next_epoch_though_replicas_have_no_room() -> None:
    """BUSY before anything was sent is no end: it is tried again, until the time is over."""
    town = Town()
    later = follow(town.genesis, town.link(town.genesis, town.change(0, 1, 2, 3, 4), 24))

    class Busy:
        configuration, position, calls = town.genesis, 0, 0

        def ask_for_epochs(self) -> None:
            if self.calls == 3:
                self.configuration = later

        async def call(self, operation: bytes, timeout: float) -> None:
            self.calls += 1
            if self.calls < 4:
                raise Overloaded("the replicas have too much to do")
            raise ServiceError("ReconfigureRefused", "malformed")

    client, activation = Busy(), Activation(1, 9, 24)
    await _beat_until(client, activation, time.monotonic() + 10, lambda text: None)  # type: ignore[arg-type]
    assert client.calls == 4 and activation.stall_ms >= 3 * 20
    client.calls, client.configuration = -(10**9), town.genesis
    with pytest.raises(OutcomeUnknown, match="has not come in time"):
        await _beat_until(client, activation, time.monotonic() + 0.1, lambda text: None)  # type: ignore[arg-type]


def test_members_are_shown_though_nobody_answers(folder: Path) -> None:
    """Then it is the cluster file's, and a note says that there may be later ones."""
    ended = CliRunner().invoke(cli, ["cluster", "members", "--cluster", str(folder / "cluster.toml"), "--json"])
    tree, code = json.loads(ended.stdout), ended.exit_code
    assert "no member answers" in " ".join(ended.stderr.split())
    assert (code, tree["epoch"], tree["admin_threshold"], tree["next_id"]) == (0, 0, 2, 4)
    assert [member["id"] for member in tree["members"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("command", [("add",), ("replace", "3")])
def test_no_newcomer_is_started_for_members_that_cannot_be_reached(folder: Path, command: tuple[str, ...]) -> None:
    """Nobody would order the change: nothing is left behind."""
    admins = [word for number in (1, 2) for word in ("--admin", folder / "keys" / f"admin{number}.pem")]
    code, said = run("cluster", *command, "--dir", folder, "--timeout", "0.3", *admins)
    assert (code, "0 of 4 replicas reachable" in said) == (Exit.UNKNOWN, True), said
    assert not (folder / "r4").exists()


# --- files of replicas ----------------------------------------------------------------------------------------------


def test_newcomers_files_are_kept_from_one_attempt_to_the_next(folder: Path) -> None:
    """Its key is the one that it may have been vouched for."""
    config = add_replica(folder, 4, ("127.0.0.1", 7004), "process")
    key = load_key(folder / "keys" / "r4.pem")
    assert add_replica(folder, 4, ("127.0.0.1", 9999), "power") == config
    assert load_key(folder / "keys" / "r4.pem") == key
    assert tomllib.loads(config.read_text())["port"] == 7004
    assert replica_configs(folder)[-1] == config
    OwnKeys(folder / "keys" / "r4.pem", None).erase("gone")
    assert has_left(config)
    assert config not in replica_configs(folder)


def test_keys_change_hands_in_steps_that_may_stop_anywhere(folder: Path) -> None:
    """Whatever the moment of a crash, running it again ends with a new key, the old one beside, and no mark."""
    key = folder / "keys" / "r3.pem"
    first = load_key(key)
    marks = [key.with_name(f"r3.pem{suffix}") for suffix in (".used",)]
    for mark in marks:
        mark.write_text("store 1\n")
    moved = key.with_name("r3.pem.old")
    key.rename(moved)  # as if it had stopped after the first step
    _change_keys(key, _holder(key, first.public))
    assert load_key(moved) == first
    assert load_key(key) != first
    assert not any(mark.exists() for mark in marks)
    key.unlink()
    moved.unlink()
    with pytest.raises(ConfigError, match="bft cluster replace"):
        _holder(key, first.public)


def test_new_key_that_was_written_in_part_is_not_taken(folder: Path) -> None:
    """Nobody has used it: it is made anew, before the old key leaves its place; a whole one is taken as it is."""
    key = folder / "keys" / "r3.pem"
    first = load_key(key)
    half = key.with_name("r3.pem.new")
    half.write_bytes(key.read_bytes()[:40])
    half.chmod(0o600)
    _change_keys(key, _holder(key, first.public))
    second = load_key(key)
    assert second != first
    make_key(half)
    third = load_key(half)
    _change_keys(key, _holder(key, first.public))
    assert (load_key(key), load_key(key.with_name("r3.pem.old"))) == (third, first)
    assert load_key(key.with_name("r3.pem.lost1")) == second
    assert not list(key.parent.glob("*.new*"))


def test_key_of_a_second_return_is_vouched_for_by_whichever_the_epoch_names(folder: Path) -> None:
    """The store was lost once more while a change was on its way: it may name the first key, or the one that the first
    return brought."""
    key = folder / "keys" / "r3.pem"
    first = load_key(key)
    _change_keys(key, _holder(key, first.public))
    second = load_key(key)
    _change_keys(key, _holder(key, first.public))
    assert _holder(key, second.public) == key.with_name("r3.pem.lost1")
    third = load_key(key)
    _change_keys(key, _holder(key, first.public))
    assert _holder(key, third.public) == key.with_name("r3.pem.lost2")
    assert _holder(key, second.public) == key.with_name("r3.pem.lost1"), "the one before is still there"
    _let_vouch(key, _holder(key, second.public))
    keys = OwnKeys(key, None)
    assert keys.old == second
    assert second.public not in keys.signers(b"c" * 32, ReplicaId(3))


@pytest.mark.parametrize("what", ["another key", "encrypted", "no administrator", "nobody answers", "too few sign"])
def test_return_looks_for_all_that_it_needs_before_it_touches_anything(
    folder: Path, what: str
) -> None:
    """Key, administrators and the other replicas: what is missing is said, and store and keys are as they were."""
    keys, data = folder / "keys", folder / "r3" / "data"
    data.mkdir()
    (data / "replica.db").write_text("what is left")
    (keys / "r3.pem.used").write_text("store 1\n")
    admins = [f"--admin={keys / name}.pem" for name in ("admin1", "admin2")]
    if what == "another key":
        shutil.copy(keys / "r2.pem", keys / "r3.pem")
    elif what == "encrypted":
        pair = load_key(keys / "r3.pem")
        (keys / "r3.pem").unlink()
        save_key(keys / "r3.pem", pair, b"secret")
    elif what == "no administrator":
        admins[1] = f"--admin={keys / 'client.pem'}"
    elif what == "too few sign":
        del admins[1]
    before = {path: path.read_bytes() for path in [*keys.iterdir(), *data.iterdir()]}
    code, said = run("replica", "rejoin", folder / "r3" / "replica.toml", "--dir", folder, *admins)
    expected = {
        "another key": (Exit.USAGE, "nobody can vouch for a new one"),
        "encrypted": (Exit.USAGE, "give its passphrase"),
        "no administrator": (Exit.USAGE, "is no administrator's"),
        "nobody answers": (Exit.FAILED, "0 of the 3 other replicas answer, and 3 must"),
        "too few sign": (Exit.USAGE, "1 of 2 administrators"),
    }[what]
    assert (code, expected[1] in said) == (expected[0], True), said
    assert {path: path.read_bytes() for path in [*keys.iterdir(), *data.iterdir()]} == before
    assert not (folder / "r3" / "replica.pid").exists()


def test_what_is_left_of_a_store_is_put_aside(tmp_path: Path) -> None:
    """Under a name of its own each time; an absent one is none."""
    data = tmp_path / "data"
    assert _put_aside(data) is None
    for number in (1, 2):
        data.mkdir()
        assert _put_aside(data) == tmp_path / f"data.lost{number}"


# --- who is ready, who is healthy -----------------------------------------------------------------------------------


def test_newcomer_is_ready_when_it_says_so_and_is_not_far_behind() -> None:
    """A liar among the newcomers can only fail to join: its word is checked by every replica."""
    town = Town()
    change = Change(town.genesis, (*town.genesis.members, town.member(4)))
    word = town.ready(4)
    good = {"epoch": 0, "stable": 64, "ready": ready_hex([word]), "fetching": None}

    def judged(floor: int = 64, **other: object) -> object:
        return _is_ready(Account(4, "host:7004", {**good, **other}), change, town.member(4), floor)

    assert judged() == (word,)
    assert judged(65) == "has the state at slot 64, the others are beyond 65"
    assert judged(fetching=96) == judged(fetching=96, fetch={"overtaken": 4}) == "fetches the state"
    assert "changes faster than it comes: 5 checkpoints" in judged(fetching=96, fetch={"overtaken": 5})
    assert judged(epoch=1) == "is in epoch 1 still, the cluster is in 0"
    for bad in ([], None, "x", ["zz"], ready_hex([town.ready(5)]), [17]):
        assert judged(ready=bad) == "does not say that it is ready"
    assert ready_from(ready_hex([word, word])) == (word, word)


def test_member_is_healthy_when_it_votes_and_keeps_up() -> None:
    """The others' claims are taken from beyond any liar's boast."""
    town = Town()

    def account(replica: int, executed: int, **other: object) -> Account:
        report = {"role": "member", "epoch": 0, "executed": executed, "fetching": None, **other}
        return Account(replica, "host", report)

    others = [account(0, 100), account(1, 100), account(2, 1_000_000)]

    def judged(candidate: Account) -> object:
        return standing(town.genesis, [*others, candidate], 3, 64)

    assert judged(account(3, 36)) == account(3, 36)
    assert judged(account(3, 35)) == "it has executed slot 35, the others 100"
    assert judged(account(3, 100, role="learner")) == "it says it is a learner"
    assert judged(account(3, 100, epoch=1)) == "it is in epoch 1, the cluster in 0"
    assert judged(account(3, 100, fetching=3)) == "it fetches the state"
    assert judged(Account(3, "host", failure="no answer")) == "no answer"
    assert standing(town.genesis, others, 3, 64) == "it is no member of epoch 0"


def test_key_pairs_are_told_apart() -> None:
    """`newly_keyed` is who must say that it is ready: newcomers and those with another key, nobody else."""
    town = Town()
    rekeyed = town.member(3, KeyPair.of_seed(b"k" * 32))
    change = Change(town.genesis, (*town.genesis.members[:3], rekeyed, town.member(4)))
    assert change.newly_keyed == [rekeyed, town.member(4)]
    assert change.describe() == "epoch 0: n = 4 -> 5: add r4; new key for r3"
