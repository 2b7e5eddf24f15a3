"""Units and plain data, as people and programs read them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from redfs.client.cli import output
from redfs.proto.gen import cluster_pb2 as pb


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (1 << 30, "1.0 GiB"),
        (1 << 60, "1024.0 PiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.9, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (3 * 86400 + 4 * 3600, "3 d 4 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_counts_and_shares() -> None:
    assert output.count(1, "node") == "1 node"
    assert output.count(12345, "block") == "12,345 blocks"
    assert output.share(1, 4) == "25 %"


def test_the_home_folder_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert output.short_path("/home/me/photos") == "~/photos"
    assert output.short_path("/home/merry") == "/home/merry"


def test_messages_become_plain_data() -> None:
    status = pb.PoolStatus(free_bytes=1 << 60, problems=["a"], jobs=[pb.Job(job_id=3, kind="reap")])
    data = output.message_data(status)
    assert data["free_bytes"] == 1 << 60
    assert data["problems"] == ["a"]
    assert data["jobs"][0]["kind"] == "reap"


def test_the_colours_that_have_names_are_the_consoles() -> None:
    page = (Path(output.__file__).parents[1] / "console" / "static" / "js" / "color.js").read_text()
    shown = dict(re.findall(r'\["(#[0-9a-f]{6})", "(\w+)"\],', page))
    assert {name.lower(): color for color, name in shown.items()} == output.PALETTE
