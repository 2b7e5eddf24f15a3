"""What the documents say is true: commands work as written, links lead somewhere, no command is left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from redfs.client.cli.main import redfs
from tests.integration.pools import RunningPool

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "deploy" / "README.md"]


def marked_commands() -> list[str]:
    """The README's blocks that are marked as tested, in order."""
    return re.findall(r"<!-- tested -->\n```sh\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_first_commands_are_the_two() -> None:
    shown = [line.split("#")[0].strip() for line in README.read_text().splitlines() if line.startswith("    ")]
    assert shown[:2] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo:", makefile, re.MULTILINE)
    assert re.search(r"^test:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def walk(group: click.Group, before: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from walk(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


def test_every_command_and_option_is_on_the_page() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    commands = dict(walk(redfs, ("redfs",)))
    assert len(commands) > 15
    for name, command in commands.items():
        assert f"`{name}" in text, name
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[0] in text, f"{name} {parameter.opts[0]}"


def test_every_exit_code_is_on_the_page() -> None:
    from redfs.core.errors import BY_CODE, FsError

    text = (ROOT / "docs" / "cli.md").read_text()
    for error in BY_CODE.values():
        if error is not FsError:
            assert f"| {error.exit_code} | `{error.code}` |" in text, error


def test_every_fault_has_its_test() -> None:
    named = re.findall(r"\| `(test_\w+)` \|$", (ROOT / "docs" / "faults.md").read_text(), re.MULTILINE)
    cluster = ROOT / "tests" / "cluster"
    sources = "".join((cluster / name).read_text() for name in ("test_faults.py", "test_healing.py"))
    written = re.findall(r"^def (test_\w+)", sources, re.MULTILINE)
    assert len(named) > 10
    assert set(named) == set(written), "docs/faults.md has rows without a test, or tests without a row"


@pytest.mark.mount
def test_the_readmes_commands_work_as_written(tmp_path: Path) -> None:
    blocks = marked_commands()
    assert len(blocks) >= 5
    pool = RunningPool(tmp_path, nodes=6)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "REDFS_"))}
    # The default pool lies below the home folder; cleaning up looks below `tmp_path`.
    env |= {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    pool.local = type(pool.local)(tmp_path / ".local" / "share" / "redfs" / "pool")
    script = "set -euo pipefail\n" + "\n".join(blocks)
    try:
        done = subprocess.run(
            ["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        for text in ("photos@before", "try-it", "- license.txt", "degraded", "still here", "clean:"):
            assert text in done.stdout, text
    finally:
        pool.destroy()
