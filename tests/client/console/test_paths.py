"""Paths of any bytes as text, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redfs.client.console import paths
from redfs.core.errors import InvalidArgument


@given(st.binary(max_size=60))
def test_any_bytes_come_back(path: bytes) -> None:
    text = paths.encode(path)
    assert text.isascii()
    assert text.isprintable()
    assert paths.decode(text) == path
    assert paths.from_query(b"a=1&path=" + text.encode() + b"&path=second") == path
    assert paths.shown(path) == path.decode("utf-8", "replace")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="%"), max_size=60))
def test_what_is_not_encoded_stands_for_itself(text: str) -> None:
    assert paths.decode(text) == text.encode()


def test_a_query_is_read_as_every_query_is() -> None:
    assert paths.from_query(b"") == b"/"
    assert paths.from_query(b"path=") == b""
    assert paths.from_query(b"xpath=/a&p%61th=/b") == b"/b"
    assert paths.from_query(b"path=/a+b%2B") == b"/a b+"
    assert paths.from_query("path=/ü+%20".encode()) == "/ü  ".encode()


def test_what_is_refused() -> None:
    for text in ("%", "a%2", "%zz", "%%20", "\ud800"):
        with pytest.raises(InvalidArgument):
            paths.decode(text)
    for query in (b"path=%", b"path=\xff%"):
        with pytest.raises(InvalidArgument):
            paths.from_query(query)
    for path in (b"/..", b"a/../b", b"a\0"):
        with pytest.raises(InvalidArgument):
            paths.components(path)
    assert paths.components(b"//a/./b/") == [b"a", b"b"]
    assert paths.components(b"") == []
