"""`redfs snapshot schedule`, `schedules`, `unschedule`: snapshots that the coordinator makes and prunes by itself."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

import click

from redfs.client.cli import output
from redfs.client.cli.settings import Command, settings
from redfs.core.errors import InvalidArgument
from redfs.core.schedules import every_text

if TYPE_CHECKING:
    from redfs.proto.gen import cluster_pb2 as pb

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_INTERVAL = re.compile(r"([0-9]{1,12})([smhdw]?)\Z")


def _seconds(_context: click.Context, _option: click.Parameter, text: str) -> int:
    """90m, 1h, 2d, 1w, or seconds."""
    found = _INTERVAL.match(text)
    if found is None:
        raise click.BadParameter(f"'{text}' is no interval: write a number and s, m, h, d or w, as in 90m or 1d")
    return int(found[1]) * UNITS_S[found[2] or "s"]


def _when(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")


@click.command(cls=Command)
@click.argument("volume", metavar="VOLUME")
@click.option("--every", "every_s", callback=_seconds, required=True, metavar="TIME", help="90m, 1h, 1d, 1w.")
@click.option("--keep", type=click.IntRange(1), required=True, metavar="N", help="As many stay, the newest.")
@click.option("--label", metavar="LABEL", help="Part of their names (default: hourly, daily, every-90m...).")
def schedule(volume: str, every_s: int, keep: int, label: str | None) -> None:
    """Make snapshots of a volume by themselves, and delete the oldest of them.

    They are named VOLUME@LABEL-DATE-TIME, in UTC. Only snapshots that the schedule made are ever deleted by it, never
    one that is mounted. The same label again changes the schedule.
    """
    chosen = settings()
    if "@" in volume:
        raise InvalidArgument(f"'{volume}' is a snapshot: name the volume")
    with chosen.connect() as pool:
        made = pool.set_schedule(volume, every_s=every_s, keep=keep, label=label or "")
    chosen.emit(
        output.message_data(made),
        lambda: click.echo(
            f"A snapshot {made.volume}@{made.label}-... every {every_text(made.every_s)}, the newest {made.keep} stay; "
            f"the next at {_when(made.next_ns)}"
        ),
    )


@click.command("schedules", cls=Command)
@click.argument("volume", metavar="[VOLUME]", required=False)
def list_schedules(volume: str | None) -> None:
    """List the schedules, of one volume or of all."""
    chosen = settings()
    with chosen.connect() as pool:
        found = pool.schedules(volume or "")
    chosen.emit([output.message_data(one) for one in found], lambda: _print_schedules(found))


def _print_schedules(found: list[pb.Schedule]) -> None:
    if not found:
        click.echo("No schedules: make one with `redfs snapshot schedule VOLUME --every 1h --keep 24`")
        return
    rows: list[tuple[str | tuple[str, str], ...]] = [
        (one.volume, one.label, every_text(one.every_s), str(one.keep), _when(one.next_ns), (one.last_error, "red"))
        for one in found
    ]
    output.print_table(("VOLUME", "LABEL", "EVERY", "KEEP", "NEXT", "LAST ERROR"), rows, right=("EVERY", "KEEP"))


@click.command(cls=Command)
@click.argument("volume", metavar="VOLUME")
@click.option("--label", metavar="LABEL", help="Which one, where there are several.")
def unschedule(volume: str, label: str | None) -> None:
    """End a schedule; the snapshots that it made stay."""
    chosen = settings()
    with chosen.connect() as pool:
        ended = pool.remove_schedule(volume, label or "")
    chosen.emit(
        output.message_data(ended),
        lambda: click.echo(f"No more {ended.label} snapshots of {ended.volume}; those that there are stay"),
    )


COMMANDS = (schedule, list_schedules, unschedule)
"""Verbs of `redfs snapshot`."""
