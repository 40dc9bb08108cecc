"""XML as a stream of tags and text. Entities, which can expand without end or name other files, are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO
from xml.parsers import expat

from chargen.text.formats.limits import BLOCK_BYTES, UnreadableError

DEEPEST = 2000  # elements inside each other
LONGEST_TOKEN = 1 << 22  # bytes; some versions of Expat take quadratic time for long ones

Event = tuple[str, str, dict[str, str]]  # "start", "end" or "text"; the name or text; the attributes


def events(file: IO[bytes]) -> Iterator[Event]:
    """Yield the tags and the text of an XML file. Names are "namespace local", or "local" without a namespace.

    Raises ExpatError for a file that is damaged, and UnreadableError for one that declares entities or passes a limit.
    """
    found: list[Event] = []
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.StartElementHandler = lambda name, attributes: found.append(("start", name, attributes))
    parser.EndElementHandler = lambda name: found.append(("end", name, {}))
    parser.CharacterDataHandler = lambda text: found.append(("text", text, {}))
    parser.EntityDeclHandler = _refuse
    depth = token = 0
    while True:
        data = file.read(BLOCK_BYTES)
        parser.Parse(data, not data)
        token = 0 if found else token + len(data)
        for event in found:
            depth += (event[0] == "start") - (event[0] == "end")
            yield event
        if depth > DEEPEST or token > LONGEST_TOKEN:
            raise UnreadableError("refused, because its XML is nested too deeply or has a tag that is too long")
        found.clear()
        if not data:
            return


def _refuse(*declared: object) -> None:
    raise UnreadableError("refused, because its XML declares entities")


def local(name: str) -> str:
    """Return a name without its namespace."""
    return name[name.rfind(" ") + 1 :]


def plain(attributes: dict[str, str]) -> dict[str, str]:
    """Return attributes by their names without namespaces."""
    return {local(name): value for name, value in attributes.items()}
