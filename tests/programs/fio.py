"""fio with verify: what several jobs wrote, through several engines, is what they read, also after a remount."""

from __future__ import annotations

from tests.programs.place import Place, needs, run

JOB_MIB = 8
_COMMON = (
    "--bs=4k-64k", "--bsrange=4k-64k", "--numjobs=2", "--fallocate=none", "--verify=crc32c", "--do_verify=1",
    "--verify_fatal=1", "--verify_state_save=0", "--randrepeat=1", "--group_reporting", "--thread=0",
)  # fmt: skip
JOBS = {
    "random": ("--rw=randrw", "--ioengine=psync", "--fsync=32"),
    "sequential": ("--rw=write", "--ioengine=psync", "--end_fsync=1"),
    "mapped": ("--rw=randwrite", "--ioengine=mmap", "--fsync=64"),
    "direct": ("--rw=randwrite", "--ioengine=libaio", "--iodepth=16", "--direct=1"),
    "vectors": ("--rw=rw", "--ioengine=pvsync"),
}


def check_fio(place: Place) -> None:
    """Random and sequential work with crc32c verify: psync, pvsync, mmap, libaio with O_DIRECT; read again later."""
    needs("fio", "fio")
    size = f"--size={place.times(JOB_MIB)}m"
    seed = f"--randseed={place.seed}"
    for name, words in JOBS.items():
        run("fio", f"--name={name}", f"--directory={place.folder}", size, seed, *_COMMON, *words)
    place.remounted()
    for name, words in JOBS.items():
        where = f"--directory={place.other_view}"
        run("fio", f"--name={name}", where, size, seed, *_COMMON, *words, "--verify_only")
