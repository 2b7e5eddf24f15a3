"""rsync, tar and cp: copies carry everything, and what was copied already is not copied again."""

from __future__ import annotations

from pathlib import Path

from tests.programs.place import Place, needs, run
from tests.programs.trees import Described, assert_same, describe, make_tree, takes_attributes

FILES = 300


def _made(place: Place) -> tuple[Path, dict[str, Described], tuple[str, ...]]:
    """A tree in the place, the same as on the local file system: (its top, what it is, what that one cannot hold)."""
    needs("cmp", "diffutils")
    without = () if takes_attributes(place.reference) else ("xattrs",)
    for base in (place.folder, place.reference):
        make_tree(place, base / "source", place.times(FILES), attributes=not without)
    place.remounted()
    wanted = describe(place.reference / "source")
    assert_same(describe(place.other_view / "source"), wanted, "the tree that was made")
    return place.folder / "source", wanted, without


def check_rsync(place: Place) -> None:
    """rsync -a --checksum, and -HAXS --delete of a tree with links, ACLs, xattrs and sparse files, both ways."""
    needs("rsync", "rsync")
    source, wanted, _ = _made(place)
    plain = place.folder / "plain"
    run("rsync", "-a", "--checksum", f"{source}/", plain)
    again = run("rsync", "-a", "--checksum", "--itemize-changes", f"{source}/", place.other_view / "plain")
    assert again == "", f"the second rsync found something to do: {again}"
    assert_same(
        describe(plain, ("links", "same_as", "xattrs")),
        describe(source, ("links", "same_as", "xattrs")),
        "the plain copy",
    )

    exactly = ("-aHAXS", "--delete", "--modify-window=-1")  # times count to the nanosecond
    back = place.reference / "back"
    for start, end in ((source, place.folder / "exact"), (place.folder / "exact", back)):
        run("rsync", *exactly, f"{start}/", end)
        assert_same(describe(end), wanted, f"the copy {end.name}")
    for name in sorted(wanted)[:: max(1, len(wanted) // 20)]:
        path = source / name
        if path.is_symlink() or path.is_file():
            path.unlink()
            path.write_bytes(b"new " * 1000)
    (source / "added").mkdir()
    run("rsync", *exactly, f"{source}/", place.folder / "exact")
    again = run("rsync", *exactly, "--checksum", "--itemize-changes", f"{source}/", place.folder / "exact")
    assert again == "", f"rsync found something to do after it had copied: {again}"
    place.remounted()
    assert_same(describe(place.other_view / "exact"), describe(source), "the copy after changes")


def check_tar(place: Place) -> None:
    """A round trip through tar with ACLs, extended attributes and sparse files, there and back."""
    needs("tar", "tar")
    source, wanted, _ = _made(place)
    options = ("--format=posix", "--acls", "--xattrs", "--xattrs-include=*", "--sparse", "--numeric-owner")
    for archive, start, end in (
        (place.reference / "a.tar", source, place.folder / "unpacked"),
        (place.folder / "b.tar", place.folder / "unpacked", place.reference / "unpacked"),
    ):
        end.mkdir()
        run("tar", *options, "-cf", archive, "-C", start, ".")
        run("tar", *options, "-xpf", archive, "-C", end)
        assert_same(describe(end), wanted, f"what was unpacked from {archive.name}")
        run("tar", *options, "--compare", "-f", archive, "-C", start)


def check_cp(place: Place) -> None:
    """cp -a, and cp --sparse=always, never and auto; also across file systems."""
    source, wanted, _ = _made(place)
    for end in (place.folder / "copy", place.reference / "copy"):
        run("cp", "-a", source, end)
        assert_same(describe(end), wanted, "cp -a")
    for how in ("always", "never", "auto"):
        end = place.folder / how
        run("cp", "-a", f"--sparse={how}", source, end)
        place.remounted()
        assert_same(describe(place.other_view / how), wanted, f"cp --sparse={how}")
    run("cp", "-a", "--reflink=auto", source / ".", place.folder / "reflink")
    run("diff", "--recursive", "--no-dereference", "--exclude=pipe", source, place.other_view / "reflink")
