"""`redfs send` and `redfs receive`: what they refuse before they ask a pool."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from tests.client.cli.conftest import CommandLine
from tests.client.cli.fake_coordinator import FakeCoordinator


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def test_a_stream_is_not_for_a_terminal(
    redfs: CommandLine, coordinator: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=Terminal(), flush=lambda: None))
    refused = redfs("send", "v")
    assert refused.code == 2
    assert "redirect it" in refused.err
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Terminal()))
    monkeypatch.setenv("REDFS_POOL", coordinator.address)
    refused = redfs("receive", "v")
    assert refused.code == 2
    assert "< FILE" in refused.err
    assert coordinator.calls == []


def test_something_else_than_a_stream_is_refused(
    redfs: CommandLine, coordinator: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"PK\x03\x04 a zip file, say")))
    refused = redfs("receive", "v")
    assert refused.code == 11
    assert "no stream of `redfs send`" in refused.err
    assert coordinator.calls == []


def test_what_is_not_there_or_not_frozen_is_not_sent(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    redfs("volume", "create", "v")
    assert redfs("send", "none").code == 3
    assert redfs("send", "zero").code == 6
    assert "no snapshot" in redfs("send", "v", "--from", "v").err
