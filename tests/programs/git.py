"""git: a repository of thousands of files, cloned, packed and checked, whose index still fits after a remount."""

from __future__ import annotations

import random
from pathlib import Path

from tests.programs.place import Place, needs, run

FILES = 3000
NOBODY = {
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "gc.auto", "GIT_CONFIG_VALUE_1": "0",
}  # fmt: skip


def check_git(place: Place) -> None:
    """A repository of some thousands of files: init, commit, clone, gc, fsck, status after a remount."""
    needs("git", "git")
    chance = place.random()
    trees = []
    for base in (place.folder, place.reference):
        chance.seed(place.seed)
        trees.append(_history(base / "work", chance, place.times(FILES)))
    assert trees[0] == trees[1], "the same files became another tree than on the local file system"

    work, clone = place.folder / "work", place.folder / "clone"
    _git(place.folder, "clone", "--quiet", "--no-local", "--no-hardlinks", str(work), str(clone))
    _git(work, "gc", "--quiet", "--aggressive", "--prune=now")
    _git(clone, "repack", "-a", "-d", "-q")
    place.remounted()
    for repository in (place.other_view / "work", place.other_view / "clone"):
        _git(repository, "fsck", "--full", "--strict", "--no-progress")
        assert _git(repository, "status", "--porcelain") == ""
        assert _git(repository, "rev-parse", "HEAD^{tree}").strip() == trees[0]
    for repository in (work, clone):
        # Unlike `status` this believes what the index remembers: inode numbers, owners, both times in nanoseconds.
        assert _git(repository, "diff-files", "--name-only") == "", "files look changed to the index"


def _history(work: Path, chance: random.Random, files: int) -> str:
    """Makes a repository with three commits and a branch that is merged; the id of its last tree."""
    work.mkdir()
    _git(work, "init", "--quiet", "--initial-branch=main")
    names = [f"d{n % 40}/e{n % 7}/file{n}.txt" for n in range(files)]
    for name in names:
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(b"%d line\n" % chance.randrange(10**6) for _ in range(chance.randrange(60))))
    _git(work, "add", ".")
    _git(work, "commit", "--quiet", "-m", "one")
    _git(work, "checkout", "--quiet", "-b", "side")
    for name in chance.sample(names, max(1, files // 10)):
        with open(work / name, "ab") as file:
            file.write(b"more\n")
    _git(work, "commit", "--quiet", "-a", "-m", "two")
    _git(work, "checkout", "--quiet", "main")
    for name in chance.sample(names, max(1, files // 20)):
        _git(work, "mv", name, name + ".moved") if chance.random() < 0.05 else (work / name).chmod(0o755)
    _git(work, "commit", "--quiet", "-a", "-m", "three")
    _git(work, "merge", "--quiet", "--no-edit", "side")
    return _git(work, "rev-parse", "HEAD^{tree}").strip()


def _git(where: Path, *words: str) -> str:
    return run("git", *words, cwd=where, env=NOBODY)
