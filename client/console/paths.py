"""Paths in a volume are bytes, in URLs and JSON they are text: percent-encoded, everywhere and one way.

A path in a reply or body of the API is the volume's bytes as they stand in a URL (`/a%20b/%FF`), so names of any bytes
can be asked for, and what a reply named can be put behind `?path=` as it is. Texts for people are made apart, with
U+FFFD for what is no UTF-8; nothing is ever found by them. Pure; raises InvalidArgument.
"""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from redfs.core.errors import InvalidArgument

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def encode(path: bytes) -> str:
    """The bytes as text for URLs and JSON. Slashes stay."""
    return quote_from_bytes(path, safe="/")


def decode(text: str) -> bytes:
    """The bytes that such a text means; what is not encoded stands for itself, in UTF-8."""
    try:
        return _decode(text.encode())
    except UnicodeEncodeError:
        raise InvalidArgument("the path holds half of a surrogate pair: percent-encode its bytes") from None


def _decode(raw: bytes) -> bytes:
    if _BROKEN_ESCAPE.search(raw):
        raise InvalidArgument(f"the path '{shown(raw)}' has a % that two hex digits do not follow: write % as %25")
    return unquote_to_bytes(raw)


def from_query(query: bytes, name: str = "path", default: bytes = b"/") -> bytes:
    """The bytes of one value of a raw query string. A framework would have made UTF-8 of it and lost the others."""
    for field in query.split(b"&"):
        key, _, value = field.partition(b"=")
        if unquote_to_bytes(key.replace(b"+", b" ")) == name.encode():
            return _decode(value.replace(b"+", b" "))
    return default


def components(path: bytes) -> list[bytes]:
    """The names along a path from the top of the volume. Empty ones and `.` count for nothing."""
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise InvalidArgument("a path here goes down only: write it without ..")
    if b"\0" in path:
        raise InvalidArgument("a path holds no NUL")
    return names


def shown(name: bytes) -> str:
    """A name or path for people."""
    return name.decode("utf-8", "replace")
