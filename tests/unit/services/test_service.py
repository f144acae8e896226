"""`bft.Service`: typed operations, errors, queries, and state that survives its own checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bft
from bft.client.blocking import BlockingProxy
from bft.client.proxy import ServiceProxy
from bft.errors import ServiceError
from bft.messages import STATUS_ERROR, STATUS_FAILED, STATUS_OK
from bft.services.interface import PROXY_METHODS, interface_of, method_name
from bft.services.machine import RESULT_BYTES_MAX, ServiceMachine
from bft.services.outcome import require_ok, result_of
from bft.state.context import Context


class Overdrawn(Exception):
    """The account has less."""


class Account(msgspec.Struct, forbid_unknown_fields=True):
    owner: str
    cents: int


class Bank(bft.Service):
    errors = (Overdrawn,)
    history: list[tuple[str, int]]
    accounts: bft.Map[str, Account]

    def __init__(self) -> None:
        self.accounts = bft.Map()
        self.deposits = 0
        self.history = []

    @bft.command
    def deposit(self, account: str, cents: Annotated[int, msgspec.Meta(ge=0)] = 1) -> int:
        self.deposits += 1
        found = self.accounts.get(account) or Account(account, 0)
        found.cents += cents
        self.accounts[account] = found
        self.history.append((account, cents))
        return found.cents

    @bft.command(errors=(KeyError,))
    def withdraw(self, account: str, cents: int) -> int:
        found = self.accounts[account]
        if found.cents < cents:
            raise Overdrawn(f"{account} has {found.cents}")
        found.cents -= cents
        self.accounts[account] = found
        return found.cents

    @bft.command
    def open_all(self, accounts: list[Account]) -> None:
        for account in accounts:
            self.accounts[account.owner] = account

    @bft.command
    def break_it(self, how: str) -> bytes:
        self.deposits = 99
        match how:
            case "memory":
                raise MemoryError
            case "file":
                raise FileNotFoundError("x")
            case "assert":
                raise AssertionError("x")
            case "large":
                return bytes(RESULT_BYTES_MAX)
            case "unencodable":
                return object()  # type: ignore[return-value]
            case _:
                raise ValueError(how)

    @bft.command
    def when(self) -> tuple[int, int, float]:
        context = bft.context()
        return context.time_ns, context.seq, context.random().random()

    @bft.query
    def balance(self, account: str) -> int:
        found = self.accounts.get(account)
        return found.cents if found else 0

    @bft.query
    def meddle(self, how: str) -> None:
        match how:
            case "map":
                self.accounts["x"] = Account("x", 1)
            case "attribute":
                self.deposits = 7
            case "delete":
                del self.deposits
            case "context":
                bft.context()


def operation(*parts: object) -> bytes:
    return msgspec.msgpack.encode(parts)


def run(machine: ServiceMachine, *parts: object) -> tuple[int, object]:
    status, value = machine.execute(operation(*parts), Context())
    return status, msgspec.msgpack.decode(value) if status != STATUS_FAILED else value.decode()


def test_command_takes_typed_arguments_and_returns_its_result() -> None:
    """Defaults, constraints and Structs work in arguments."""
    machine = ServiceMachine(Bank())
    assert run(machine, "deposit", "alice", 5) == (STATUS_OK, 5)
    assert run(machine, "deposit", "alice") == (STATUS_OK, 6)
    assert run(machine, "open_all", [{"owner": "bob", "cents": 3}]) == (STATUS_OK, None)
    assert run(machine, "balance", "bob") == (STATUS_OK, 3)


def test_declared_exceptions_travel_as_results() -> None:
    """Errors of the class and of the decorator, with type name and text."""
    machine = ServiceMachine(Bank())
    run(machine, "deposit", "alice", 5)
    assert run(machine, "withdraw", "alice", 6) == (STATUS_ERROR, ["Overdrawn", "alice has 5"])
    assert run(machine, "withdraw", "bob", 6) == (STATUS_ERROR, ["KeyError", "'bob'"])


def test_undeclared_exceptions_tell_their_type_only() -> None:
    """Their text may depend on the process; a service's failed assertion is a result like any other bug of it."""
    machine = ServiceMachine(Bank())
    assert run(machine, "break_it", "x") == (STATUS_FAILED, "ValueError")
    assert run(machine, "break_it", "assert") == (STATUS_FAILED, "AssertionError")
    assert run(machine, "break_it", "unencodable") == (STATUS_FAILED, "TypeError")
    assert machine.service.deposits == 99, "effects before an exception stay"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("how", "error"), [("memory", MemoryError), ("file", FileNotFoundError)])
def test_environment_errors_stop_the_replica(how: str, error: type[Exception]) -> None:
    """What another replica may not meet is never a result: their states would differ."""
    with pytest.raises(error):
        run(ServiceMachine(Bank()), "break_it", how)


def test_results_beyond_a_mebibyte_are_refused() -> None:
    """The error is alike on every replica."""
    status, value = run(ServiceMachine(Bank()), "break_it", "large")
    assert status == STATUS_ERROR and isinstance(value, list) and value[0] == "ResultTooLarge"


HOSTILE = [
    (b"", "BadOperation"),
    (b"\xc1", "BadOperation"),
    (b"\x91", "BadOperation"),
    (operation(), "BadOperation"),
    (operation(5), "BadOperation"),
    (operation("nope"), "UnknownMethod"),
    (operation("__init__"), "UnknownMethod"),
    (operation("deposit"), "BadArguments"),
    (operation("deposit", 5), "BadArguments"),
    (operation("deposit", "a", -1), "BadArguments"),
    (operation("deposit", "a", 1, 1), "BadArguments"),
    (operation("deposit", "a", 1.0), "BadArguments"),
    (operation("deposit", "a", 1) + b"\xc0", "BadArguments"),
    (operation("open_all", [{"owner": "a", "cents": 1, "more": 1}]), "BadArguments"),
    (b"\x92\xa7deposit\xa1\xff", "BadArguments"),
    (b"\x92\xa7deposit" + b"\x91" * 5000, "BadArguments"),
    (b"\x92\xa8open_all\x91\x83\xa5owner\xa1a\xa5cents\x01\xa4more" + b"\x91" * 5000, "BadArguments"),
    (b"\xdd\xff\xff\xff\xff\xa7deposit", "BadArguments"),
    (b"\xdc\x00\x03\xd9\x07deposit\xa1a\x01", None),
]


@pytest.mark.parametrize(("hostile", "code"), HOSTILE)
def test_hostile_operations_get_a_declared_error(hostile: bytes, code: str | None) -> None:
    """Whatever the bytes, all replicas give the same answer, and nothing changes."""
    machine = ServiceMachine(Bank())
    status, value = machine.execute(hostile, Context())
    if code is None:
        assert status == STATUS_OK
        return
    assert status == STATUS_ERROR and msgspec.msgpack.decode(value)[0] == code
    assert machine.query(hostile) == (status, value)
    assert machine.service.deposits == 0  # type: ignore[attr-defined]


class Card(msgspec.Struct, forbid_unknown_fields=True, tag=True):
    number: str


class Transfer(msgspec.Struct, forbid_unknown_fields=True, tag=True):
    iban: str
    parts: int = 1

    def __post_init__(self) -> None:
        if self.parts == 7:
            self.parts = self._deep()
        _ = 100 // self.parts

    def _deep(self) -> int:
        return self._deep()


class Shop(bft.Service):
    @bft.command
    def pay(self, by: Card | Transfer) -> None: ...

    @bft.command
    def tag(self, names: set[list[int]]) -> None: ...


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x92\xa3pay\x82\xa6number" + b"\x91" * 5000 + b"\xc0\xa4type\xa4Card",  # its tag comes behind
        b"\x92\xa3pay\x81\xa1q" + b"\x81\xa1q" * 5000 + b"\xc0",
        operation("pay", {"type": "Transfer", "iban": "a", "parts": 0}),
        operation("tag", [[1]]),
    ],
)
def test_whatever_the_decoder_meets_is_a_refusal(hostile: bytes) -> None:
    """Not the end of all replicas: values too deep to pass over, checks of a Struct's own, what cannot be hashed."""
    machine = ServiceMachine(Shop())
    status, value = machine.execute(hostile, Context())
    assert status == STATUS_ERROR and msgspec.msgpack.decode(value)[0] == "BadArguments"
    assert machine.query(hostile) == (status, value)


def test_recursion_of_the_services_own_code_stops_the_replica() -> None:
    """How far it gets depends on the process; what it would have returned is not known here."""
    with pytest.raises(RecursionError):
        ServiceMachine(Shop()).execute(operation("pay", {"type": "Transfer", "iban": "a", "parts": 7}), Context())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_answered(hostile: bytes) -> None:
    """No bytes raise."""
    status, _ = ServiceMachine(Bank()).execute(hostile, Context())
    assert status in (STATUS_OK, STATUS_ERROR, STATUS_FAILED)
    method_name(hostile)


@pytest.mark.parametrize("how", ["map", "attribute", "delete"])
def test_queries_cannot_change_state(how: str) -> None:
    """Neither asked nor ordered."""
    machine = ServiceMachine(Bank())
    before = machine.checkpoint()[0]
    assert machine.query(operation("meddle", how)) == (STATUS_FAILED, b"ReadOnlyError")
    assert run(machine, "meddle", how) == (STATUS_FAILED, "ReadOnlyError")
    assert machine.checkpoint()[0] == before
    assert run(machine, "deposit", "a", 1) == (STATUS_OK, 1), "commands still may"


def test_queries_have_no_context_and_commands_do() -> None:
    """A query is not ordered: it has no agreed time."""
    machine = ServiceMachine(Bank())
    context = Context()
    context.time_ns, context.seq = 5, 6
    status, value = machine.execute(operation("when"), context)
    assert status == STATUS_OK and msgspec.msgpack.decode(value)[:2] == [5, 6]
    assert machine.execute(operation("when"), context) == (status, value), "dice are agreed"
    assert machine.query(operation("meddle", "context")) == (STATUS_FAILED, b"RuntimeError")


def test_query_of_a_command_is_refused() -> None:
    """What may change state must be ordered."""
    status, value = ServiceMachine(Bank()).query(operation("deposit", "a", 1))
    assert status == STATUS_ERROR and msgspec.msgpack.decode(value) == ["NotAQuery", "deposit"]


def test_query_answers_without_ordering() -> None:
    """And says the same when it is ordered."""
    machine = ServiceMachine(Bank())
    run(machine, "deposit", "a", 4)
    assert machine.query(operation("balance", "a")) == machine.execute(operation("balance", "a"), Context())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("deposit"), st.sampled_from("abc"), st.integers(0, 9)),
        st.tuples(st.just("withdraw"), st.sampled_from("abcd"), st.integers(0, 9)),
    ),
    max_size=15,
)


@settings(max_examples=80, deadline=None)
@given(steps, steps)
def test_restored_service_goes_on_like_the_original(
    before: list[tuple[object, ...]], after: list[tuple[object, ...]]
) -> None:
    """restore(checkpoint) and the same suffix give the same results and the same next digest."""
    original = ServiceMachine(Bank())
    for step in before:
        run(original, *step)
    digests, bodies = original.checkpoint()
    copy = ServiceMachine(Bank())
    copy.execute(operation("deposit", "zoe", 9), Context())
    copy.restore([bodies[digest] for digest in digests])
    assert [run(original, *step) for step in after] == [run(copy, *step) for step in after]
    assert original.checkpoint()[0] == copy.checkpoint()[0]
    assert vars(original.service).keys() == vars(copy.service).keys()


class Forgetful(bft.Service):
    def __init__(self) -> None:
        self.seen: Any = {}
        self.flag: Any = None

    @bft.command
    def note(self, key: int) -> str:
        self.seen[key] = (key, key)
        self.late = "x"
        return repr(self.seen)


def test_live_replica_goes_on_from_its_decoded_attributes() -> None:
    """Tuples in untyped attributes become lists at a checkpoint: on every replica, not only on restored ones."""
    original = ServiceMachine(Forgetful())
    run(original, "note", 2)
    digests, bodies = original.checkpoint()
    copy = ServiceMachine(Forgetful())
    copy.restore([bodies[digest] for digest in digests])
    assert run(original, "note", 1) == run(copy, "note", 1) == (STATUS_OK, "{2: [2, 2], 1: (1, 1)}")
    assert copy.service.late == "x"  # type: ignore[attr-defined]


class Replacing(bft.Service):
    def __init__(self) -> None:
        self.entries: bft.Map[str, int] = bft.Map()

    @bft.command
    def reset(self, how: str) -> None:
        if how == "new":
            self.entries = bft.Map()
        else:
            del self.entries


@pytest.mark.parametrize("how", ["new", "gone"])
def test_replaced_maps_stop_the_replica_at_its_checkpoint(how: str) -> None:
    """A map that was swapped would be restored with other types: refused, with a word what to do."""
    machine = ServiceMachine(Replacing())
    run(machine, "reset", how)
    with pytest.raises(TypeError, match="clear"):
        machine.checkpoint()


def make(source: dict[str, object]) -> type[bft.Service]:
    return type("Made", (bft.Service,), source)


class Recursive(msgspec.Struct, forbid_unknown_fields=True):
    inner: Recursive | None


class Loose(msgspec.Struct):
    x: int


def anything(self: object, value: Any) -> None: ...
def recursive(self: object, value: list[Recursive]) -> None: ...
def loose(self: object, value: dict[str, Loose]) -> None: ...
def unannotated(self, value) -> None: ...  # type: ignore[no-untyped-def]
def variable(self: object, *value: int) -> None: ...
def no_result(self: object, value: int): ...  # type: ignore[no-untyped-def]
def unknown(self: object, value: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821
async def waiting(self: object, value: int) -> None: ...
def pages(self: object) -> Iterator[int]: ...
def either(self: object) -> list[int] | set[int]: ...


@pytest.mark.parametrize(
    ("method", "why"),
    [
        (anything, "nest without bound"),
        (recursive, "holds itself"),
        (loose, "forbid_unknown_fields"),
        (unannotated, "no annotation"),
        (variable, "variable"),
        (no_result, "what it returns"),
        (unknown, "resolved"),
        (waiting, "async"),
        (pages, "Made.method returns.*Iterator.* no MessagePack encoding"),
        (either, "Made.method returns.*unions"),
    ],
)
def test_methods_that_cannot_be_replicated_are_refused(method: Any, why: str) -> None:
    """At start, with a text that says where and why."""
    with pytest.raises(TypeError, match=why):
        interface_of(make({"method": bft.command(method)}))


@pytest.mark.parametrize("wrapper", [staticmethod, classmethod])
def test_methods_without_self_are_refused(wrapper: Any) -> None:
    """Their first argument would be taken for `self`."""
    for method in (wrapper(bft.command(quiet)), bft.command(wrapper(quiet))):
        with pytest.raises(TypeError, match="no self"):
            interface_of(make({"method": method}))


def test_names_that_typed_clients_have_are_refused() -> None:
    """`proxy.lane(5)` would never reach the service, and would not say so."""
    for proxy in (ServiceProxy, BlockingProxy):
        assert {name for name in vars(proxy) if not name.startswith("_")} == PROXY_METHODS
    for name in PROXY_METHODS:
        with pytest.raises(TypeError, match="choose another"):
            interface_of(make({name: bft.command(quiet)}))


def quiet(self: object) -> None: ...


def sum_of(self: object, first: int, /, second: int, *, third: int, fourth: int = 4) -> list[int]:
    return [first, second, third, fourth]


def test_keyword_arguments_reach_the_method_by_name() -> None:
    """However they are given, and by name only where the method wants it so, as in any call."""
    machine = ServiceMachine(make({"sum_of": bft.command(sum_of)})())
    method = interface_of(type(machine.service)).methods["sum_of"]
    for args, kwargs in (((1, 2), {"third": 3}), ((1,), {"fourth": 4, "third": 3, "second": 2})):
        assert machine.execute(method.encode(args, kwargs), Context()) == (STATUS_OK, bytes([0x94, 1, 2, 3, 4]))
    with pytest.raises(TypeError, match="too many positional arguments"):
        method.encode((1, 2, 3, 4), {})


def sets_of_sets(self: object) -> set[frozenset[str]]: ...  # type: ignore[empty-body]
def nothing(self: object) -> None: ...
def forbid(self: object) -> None: ...


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"sets_of_sets": bft.query(sets_of_sets)}, "inside of a set"),
        ({"nothing": bft.command(nothing), "entries": bft.Map()}, "created in __init__"),
        ({"nothing": bft.command(nothing), "__slots__": ("total",)}, "a slot"),
        ({"nothing": bft.command(nothing), "errors": (KeyError, PermissionError)}, "stops a replica"),
        ({"forbid": bft.query(errors=(TimeoutError,))(forbid)}, "stops a replica"),
    ],
)
def test_state_and_errors_that_would_be_none_are_refused(source: dict[str, object], why: str) -> None:
    """What no checkpoint has, and what no caller can get, shows at start and not when replicas go different ways."""
    with pytest.raises(TypeError, match=why):
        ServiceMachine(make(source)())


def test_service_without_methods_is_refused() -> None:
    """Forgotten decorators are found at once."""
    with pytest.raises(TypeError, match="no method"):
        interface_of(make({}))


def test_method_encodes_calls() -> None:
    """Positional, keyword and default arguments give one operation; misfits are refused before anything is sent."""
    deposit = interface_of(Bank).methods["deposit"]
    assert (
        deposit.encode(("a", 5), {}) == deposit.encode((), {"cents": 5, "account": "a"}) == operation("deposit", "a", 5)
    )
    assert deposit.encode(("a",), {}) == operation("deposit", "a", 1)
    with pytest.raises(TypeError):
        deposit.encode((), {})
    with pytest.raises(TypeError):
        deposit.encode(("a", object()), {})
    with pytest.raises(TypeError, match=r"deposit\(account: str, cents: .*ints"):
        deposit.encode(("a", 2**64), {})


def test_outcomes_become_results_or_errors() -> None:
    """What a caller makes of each status, hostile values included."""
    method = interface_of(Bank).methods["deposit"]
    assert result_of(method, STATUS_OK, b"\x05") == 5
    for status, value, code in [
        (STATUS_ERROR, msgspec.msgpack.encode(("Overdrawn", "x")), "Overdrawn"),
        (STATUS_ERROR, b"\xc1", "Error"),
        (STATUS_FAILED, b"ValueError", "Failed"),
        (77, b"", "UnknownStatus"),
        (STATUS_OK, b"\xa1x", "BadResult"),
    ]:
        with pytest.raises(ServiceError) as caught:
            result_of(method, status, value)
        assert caught.value.code == code
    assert require_ok(STATUS_OK, b"x") == b"x"
