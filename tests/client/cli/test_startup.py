"""The command line starts at once: what is slow to import waits until a command needs it."""

from __future__ import annotations

import subprocess
import sys

from tests.client.cli.fake_coordinator import FakeCoordinator


def test_only_the_console_loads_a_web_server(coordinator: FakeCoordinator) -> None:
    program = (
        "import sys\n"
        "from redfs.client.cli.main import main\n"
        "assert main(['status']) == 0\n"
        "assert main(['tree']) == 0\n"
        "heavy = [m for m in ('fastapi', 'starlette', 'uvicorn', 'pydantic', 'uvloop') if m in sys.modules]\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "zero" in done.stdout


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from redfs.client.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = [m for m in ('grpc', 'rich', 'google.protobuf', 'asyncio', 'uvloop', 'lmdb') if m in sys.modules]\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "redfs up" in done.stdout
