"""The demo and the benchmark run, can be run again, and leave nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.pools import RunningPool, mountpoints_below

pytestmark = [pytest.mark.mount, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


def run_demo(word: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [ROOT / "scripts" / "demo", word], env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo(tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    env = os.environ | {"REDFS_DEMO": str(demo)}
    pool = RunningPool(demo, nodes=6)
    try:
        for number in (1, 2):
            out = run_demo("start", env)
            assert f"work@step-{number}" in out
            assert "● ok   6 of 6 nodes up" in out
            assert (demo / "files" / "python" / "json" / "__init__.py").is_file()
        out = run_demo("stop", env)
        assert "The demo is gone." in out
        assert not demo.exists()
        assert mountpoints_below(tmp_path) == []
    finally:
        pool.destroy()


def test_the_benchmark(tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    pool = RunningPool(folder, nodes=6)
    command = [sys.executable, str(ROOT / "bench" / "run.py"), "--scale", "0.02"]
    command += ["--data", str(folder), "--json", str(tmp_path / "results.json")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        pool.destroy()
    results = json.loads((tmp_path / "results.json").read_text())
    measured = {name: result for name, result in results.items() if isinstance(result, dict)}
    assert len(measured) >= 8
    for name, result in measured.items():
        assert result["redfs"]["rate"] > 0, name
        assert result["plain"]["rate"] > 0, name
    assert measured["4 KiB appends, fsync each"]["redfs"]["counts"]["commits"] > 0
    assert not folder.exists()
