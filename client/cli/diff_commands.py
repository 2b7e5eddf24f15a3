"""`redfs diff`: what changed between two nodes of the volume tree."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from redfs.client.cli import output
from redfs.client.cli.settings import Command, settings

if TYPE_CHECKING:
    from redfs.proto.gen import cluster_pb2 as pb

SIGNS = {"created": "+", "deleted": "-", "modified": "M", "renamed": "R"}
ARROW = " -> "


@click.command(cls=Command)
@click.argument("before")
@click.argument("after")
def diff(before: str, after: str) -> None:
    """List what changed from BEFORE to AFTER.

    Both are nodes of the tree with a common ancestor: a volume and its snapshot, two snapshots, a clone and what it was
    cloned from. `+` created, `-` deleted, `M` modified, `R` renamed; what lies in a renamed folder is not listed for
    that. A mounted volume is asked to flush first.
    """
    chosen = settings()
    from redfs.client.sorted_entries import by_path

    with chosen.connect() as pool:
        entries = by_path(pool.diff(before, after))
        if chosen.json:
            _print_json(entries)
            return
        counts: Counter[str] = Counter()
        for entry in entries:
            counts[entry.change] += 1
            click.echo(line_of(entry))
    said = ", ".join(f"{counts[change]:,} {change}" for change in SIGNS if counts[change])
    click.echo(said or "no difference", err=True)


def line_of(entry: pb.DiffEntry) -> str:
    """One entry for people and for scripts: sign, path, and for changed ones what changed."""
    parts = [word for word, told in (("content", entry.content), ("attributes", entry.attributes)) if told]
    changed = f" ({', '.join(parts)})" if parts else ""
    paths = shown(entry.path)
    if entry.change == "renamed":
        paths += ARROW + shown(entry.new_path)
    return f"{SIGNS.get(entry.change, '?')} {paths}{changed}"


def shown(path: bytes) -> str:
    """A path on one line, from which its bytes can be told: what is not printable, a backslash, and what would look
    like another part of the line is written as \\xNN. The top folder is a dot."""
    if not path:
        return "."
    text = path.decode("utf-8", "surrogateescape")
    escaped = "".join(c if c.isprintable() and c != "\\" else _escaped(c) for c in text)
    escaped = escaped.replace(ARROW, ARROW.replace(">", "\\x3e"))
    # Trailing blanks cannot be seen, a trailing parenthesis could tell what changed, and a dot alone is the top folder.
    return re.sub(r"[ )]\Z|\A\.\Z", lambda found: _escaped(found[0]), escaped)


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def entry_data(entry: pb.DiffEntry) -> dict[str, Any]:
    """An entry as plain data. A byte of a name that is no UTF-8 becomes a lone surrogate, \\udcNN in JSON."""
    data = output.message_data(entry)
    for field in ("path", "new_path"):
        data[field] = data[field].decode("utf-8", "surrogateescape")
    return data


def _print_json(entries: Iterable[pb.DiffEntry]) -> None:
    """An array, an entry a line: it may be long."""
    separator = "["
    for entry in entries:
        click.echo(f"{separator}\n{json.dumps(entry_data(entry))}", nl=False)
        separator = ","
    click.echo("[]" if separator == "[" else "\n]")
