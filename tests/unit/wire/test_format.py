"""`FORMAT.md` names every tag and every digest that the code has: others implement from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bft import headers, messages
from bft.messages import Message
from bft.transport import handshake

PACKAGE = Path(messages.__file__).parent
FORMAT = (PACKAGE / "wire" / "FORMAT.md").read_text()
DIGESTS = (PACKAGE / "digests.py").read_text()
TAGGED = {
    found.__struct_config__.tag: name
    for module in (messages, headers, handshake)
    for name, found in vars(module).items()
    if isinstance(found, type) and issubclass(found, Message) and found.__struct_config__.tag is not None
}


@pytest.mark.parametrize("tag", sorted(TAGGED), ids=lambda tag: f"{tag}-{TAGGED[tag]}")
def test_format_names_every_tag(tag: int) -> None:
    """In a table, or in the text as `tag 33`."""
    assert re.search(rf"^\|[^|]*\b{tag}\b|\| {tag} \||\btag {tag}\b", FORMAT, re.MULTILINE), TAGGED[tag]


@pytest.mark.parametrize("person", re.findall(r'person=b"([^"]+)"', DIGESTS))
def test_format_names_every_digest(person: str) -> None:
    assert f"`{person}`" in FORMAT
