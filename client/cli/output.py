"""How results look: human units, aligned tables, colours on a terminal and plain text elsewhere.

Pure formatting: data in, text out; only `console` looks at the terminal. Rich is imported where it is used, so that
commands that print a line stay quick.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redfs.core.errors import InvalidArgument

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console

PIPE_COLUMNS = 400
"""Width of tables that go to a file or pipe: lines are never cut there."""


def size(count: float) -> str:
    """Bytes for people, in binary units: 999 B, 1.5 KiB, 12.3 GiB."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        count /= 1024
        if count < 1023.95 or unit == "PiB":
            return f"{count:.1f} {unit}"
    raise AssertionError("unreachable")


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def parse_size(text: str) -> int:
    """Bytes from what people write: 500, 64K, 1.5G, 10 GiB (all binary). Raises InvalidArgument."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", text.strip().lower())
    if found is None:
        raise InvalidArgument(f"'{text}' is no size: write a number with K, M, G, T or P, like 500G")
    return int(float(found[1]) * _UNITS[found[2]])


def duration(seconds: float) -> str:
    """Seconds for people, in two units at most: 4 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def count(number: int, thing: str) -> str:
    """'1 node', '6 nodes', '12,345 blocks'."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def share(part: float, whole: float) -> str:
    """A part of something in per cent."""
    return f"{100 * part / whole:.0f} %"


def short_path(path: str | Path) -> str:
    """The path with the home folder as ~."""
    text, home = str(path), os.path.expanduser("~")
    return "~" + text[len(home) :] if home != "/" and (text == home or text.startswith(home + "/")) else text


def message_data(message: Message) -> dict[str, Any]:
    """A protobuf message as plain data: numbers stay numbers (its own JSON form makes long ones texts)."""
    data: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None:
            data[field.name] = [message_data(item) for item in value] if field.is_repeated else message_data(value)
        else:
            data[field.name] = list(value) if field.is_repeated else value
    return data


def console(*, stderr: bool = False) -> Console:
    """Where to print: colours only on a terminal, and no line is cut or wrapped elsewhere."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_COLUMNS
    return Console(file=stream, highlight=False, width=width, markup=False, emoji=False)


PALETTE = {
    "red": "#c8352b", "orange": "#c4501a", "amber": "#e0a526", "moss": "#5f7d18", "green": "#237a4b", "teal": "#17787d",
    "sky": "#2579b8", "blue": "#3a5fd0", "violet": "#6b4fcf", "plum": "#a545b5", "rose": "#c73e77", "brown": "#8a6a52",
}  # fmt: skip
"""The colours that the console offers (client/console/static/js/color.js), by name."""


def valid_style(color: str) -> str:
    """The volume's colour where the terminal knows it, else no style."""
    from rich.errors import StyleSyntaxError
    from rich.style import Style

    try:
        Style.parse(color)
    except StyleSyntaxError:
        return ""
    return color


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | tuple[str, str]]],
    *,
    right: Sequence[str] = (),
    indent: int = 0,
) -> None:
    """Aligned columns under quiet headings. A cell is a text, or a text with its style; `right` names the numbers."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True, overflow="ignore")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else Text(cell[0], style=cell[1]) for cell in row))
    out = console()
    with out.capture() as capture:
        out.print(Padding(table, (0, 0, 0, indent), expand=False))
    # Rich fills the last column with spaces; in a pipe they only get in the way.
    sys.stdout.write("\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n")
