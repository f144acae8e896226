"""Strategy expressions: `equivocate() & to("odd") & during(view=0)`, read without evaluating code.

An expression is Python syntax limited to calls with literal arguments, `&`, `|` and parentheses. Names are those of
the crime files beside this one; `package.module:name(...)` is written `use("package.module:name", ...)` and brings in
a strategy of the user's own.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from typing import Any

from bft.adversary import crimes
from bft.adversary.strategy import Guard, Strategy, as_backup, as_primary, during, only, sometimes, to
from bft.errors import ConfigError
from bft.messages import Message

GUARDS: dict[str, Callable[..., Guard]] = {
    "as_backup": as_backup,
    "as_primary": as_primary,
    "during": during,
    "sometimes": sometimes,
    "to": to,
}


def parse(expression: str) -> Strategy:
    """Build the strategy that an expression describes.

    Raises:
        ConfigError: the expression is no strategy; the text says what is wrong and which names exist.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"strategy {expression!r}: {error.msg}") from error
    built = _build(tree, expression)
    if not isinstance(built, Strategy):
        raise ConfigError(f"strategy {expression!r} is only a condition: it needs a crime")
    return built


def _build(node: ast.expr, expression: str) -> Strategy | Guard:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
        return _combine(node, expression)
    if isinstance(node, ast.Name):
        return _call(node.id, [], {}, expression)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        try:
            arguments = [ast.literal_eval(argument) for argument in node.args]
            keywords = {str(item.arg): ast.literal_eval(item.value) for item in node.keywords}
        except ValueError:
            raise ConfigError(f"strategy {expression!r}: arguments must be literals") from None
        return _call(node.func.id, arguments, keywords, expression)
    raise ConfigError(f"strategy {expression!r}: only calls, & and | are allowed")


def _combine(node: ast.BinOp, expression: str) -> Strategy | Guard:
    left = _build(node.left, expression)
    right = _build(node.right, expression)
    if isinstance(node.op, ast.BitOr):
        if isinstance(left, Strategy) and isinstance(right, Strategy):
            return left | right
        raise ConfigError(f"strategy {expression!r}: | joins two crimes")
    if isinstance(left, Strategy):
        return left & right
    if isinstance(right, Guard):
        return left & right
    return right & left


def _call(name: str, arguments: list[Any], keywords: dict[str, Any], expression: str) -> Strategy | Guard:
    if name == "use" and arguments:
        factory = _imported(str(arguments.pop(0)))
    elif name == "only":
        return only(*(_kind(str(kind), expression) for kind in arguments))
    else:
        found = GUARDS.get(name) or crimes.CRIMES.get(name)
        if found is None:
            known = ", ".join(sorted([*crimes.CRIMES, *GUARDS, "only", "use"]))
            raise ConfigError(f"strategy {expression!r}: no crime or condition named {name!r}; there are {known}")
        factory = found
    try:
        made = factory(*arguments, **keywords)
    except (TypeError, AssertionError) as error:
        raise ConfigError(f"strategy {expression!r}: {name}: {error}") from error
    if not isinstance(made, Strategy | Guard):
        raise ConfigError(f"strategy {expression!r}: {name} makes a {type(made).__name__}, not a strategy")
    return made


def _kind(name: str, expression: str) -> type[Message]:
    kind = getattr(import_module("bft.messages"), name, None)
    if not (isinstance(kind, type) and issubclass(kind, Message)):
        raise ConfigError(f"strategy {expression!r}: only({name!r}): no message of that name")
    return kind


def _imported(path: str) -> Callable[..., object]:
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"strategy {path!r}: cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"strategy {path!r}: is not callable")
    return found  # type: ignore[no-any-return]
