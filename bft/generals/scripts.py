"""Read scripted lies: who says what to whom in which round, about which words.

On the command line a lie is written `FROM>TO@ROUND/PATH=ORDER`, of which only `FROM` and `=ORDER` are needed;
`*` stands for everybody and `-` for saying nothing:

    2=retreat            2 says retreat, always, to everybody
    0>1=attack           0 says attack to 1
    3>1@2/0.2=retreat    in round 2, about what 2 said that 0 said, 3 says retreat to 1
    3>*@2=-              in round 2, 3 says nothing

A file holds the same as a list of tables (TOML) or objects (JSON) named `lie` with the keys from, to, round,
path, say. The first lie that fits a message applies; a message that none fits is told honestly.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from bft.generals.ids import GeneralId, GeneralsError, Order, Path
from bft.generals.plan import Plan
from bft.generals.seam import Chain, Courier, Message, Oral, Send
from bft.generals.traitors import Crime, View, say

LIES_MAX = 10_000
_FORM = re.compile(r"(?P<who>\d+)(>(?P<to>\d+|\*))?(@(?P<round>\d+))?(/(?P<path>\d+(\.\d+)*))?=(?P<say>.+)")


@dataclass(frozen=True, slots=True)
class Lie:
    """Hold one scripted lie; None means any receiver, round or path. `say` None means silence.

    `path` is what the words are about: who said that who said, the liar himself not included.
    """

    who: GeneralId
    say: Order | None
    to: GeneralId | None = None
    round: int | None = None
    path: Path | None = None

    def fits(self, send: Send, view: View) -> bool:
        """Say whether the lie is about this message."""
        return (
            self.who == view.me
            and self.to in (None, send.to)
            and self.round in (None, view.round)
            and self.path in (None, words_of(send.message))
        )


def words_of(message: Message) -> Path:
    """Return the path of those who said the words that a message passes on, its sender not included."""
    if isinstance(message, Oral | Courier):
        return message.path[:-1]
    return message.signers[:-1] if isinstance(message, Chain) else ()


def scripted(lies: Sequence[Lie]) -> Crime:
    """Tell exactly these lies and the truth otherwise."""

    def corrupt(send: Send, view: View) -> Sequence[Send]:
        for lie in lies:
            if lie.fits(send, view):
                return say(send, lie.say, view)
        return (send,)

    return Crime("script", corrupt)


def crimes_of(lies: Iterable[Lie]) -> dict[GeneralId, Crime]:
    """Return one scripted crime for each liar."""
    kept = list(lies)
    return {
        who: scripted([lie for lie in kept if lie.who == who])
        for who in dict.fromkeys(lie.who for lie in kept)
    }


def parse_lie(text: str, plan: Plan) -> Lie:
    """Read one lie from the command line.

    Raises:
        GeneralsError: the text does not have the form above, or names a general or an order that there is
        not.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise GeneralsError(
            f"lie {text!r} is not of the form FROM>TO@ROUND/PATH=ORDER, such as 3>1@2/0.2=retreat"
        )
    part = found.groupdict()
    return _require_sense(
        Lie(
            who=GeneralId(int(part["who"])),
            say=None if part["say"] == "-" else part["say"],
            to=None if part["to"] in (None, "*") else GeneralId(int(part["to"])),
            round=None if part["round"] is None else int(part["round"]),
            path=None
            if part["path"] is None
            else tuple(GeneralId(int(step)) for step in part["path"].split(".")),
        ),
        plan,
    )


class _WrittenLie(msgspec.Struct, rename={"who": "from"}, forbid_unknown_fields=True):
    who: int
    say: str
    to: int | None = None
    round: int | None = None
    path: list[int] | None = None


class _WrittenScript(msgspec.Struct, forbid_unknown_fields=True):
    lie: list[_WrittenLie]


def parse_script(text: str, plan: Plan, *, is_json: bool) -> tuple[Lie, ...]:
    """Read a script file's text.

    Raises:
        GeneralsError: it is not TOML or JSON, has other keys, too many lies, or names what there is not.
    """
    try:
        tree: Mapping[str, object] = json.loads(text) if is_json else tomllib.loads(text)
        script = msgspec.convert(tree, _WrittenScript)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise GeneralsError(f"script cannot be read: {error}") from error
    if len(script.lie) > LIES_MAX:
        raise GeneralsError(f"script has {len(script.lie)} lies, expected {LIES_MAX} at most")
    return tuple(
        _require_sense(
            Lie(
                who=GeneralId(lie.who),
                say=None if lie.say in ("-", "nothing") else lie.say,
                to=None if lie.to is None else GeneralId(lie.to),
                round=lie.round,
                path=None if lie.path is None else tuple(GeneralId(step) for step in lie.path),
            ),
            plan,
        )
        for lie in script.lie
    )


def _require_sense(lie: Lie, plan: Plan) -> Lie:
    named = (lie.who, *(() if lie.to is None else (lie.to,)), *(lie.path or ()))
    for general in named:
        if not 0 <= general < plan.n:
            raise GeneralsError(f"general {general} in a lie is not one of 0..{plan.n - 1}")
    if lie.say is not None and lie.say not in plan.orders:
        raise GeneralsError(f"order {lie.say!r} in a lie is not one of {', '.join(plan.orders)}")
    return lie
