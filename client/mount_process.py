"""The process behind one mount: `python -m redfs.client.mount_process --pool P --volume V --mountpoint DIR`.

It forks to the background before anything else is loaded (no thread and no gRPC channel survives a fork); the process
that was called waits on a pipe, until the mount answers or for the one line that says why not, and passes that on with
the error's exit code. With --foreground it stays.

However the mount ends (`redfs umount`, `umount`, `fusermount3 -u`, SIGTERM, Ctrl-C), everything dirty is flushed and
committed and the session closed before the process ends; nothing that an application was told is written is given up
before `--give-up-s` of trying. What could not be saved then is named in the log and told to who unmounts.

Failure: a crash of this process loses what was not fsynced (invariant 5 says how it looks then) and leaves a mount
point that answers ENOTCONN until it is unmounted. A mount whose session lapsed has its volume again when it can
(`fs/reattaching.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redfs.client import mounting
from redfs.client.config import log_path
from redfs.core.errors import InternalError, RedfsError

if TYPE_CHECKING:
    from redfs.client.fs.copier import Copier
    from redfs.client.fs.figures import FiguresReporter
    from redfs.client.fs.fuse_adapter import FuseAdapter
    from redfs.client.fs.fuse_loop import Readiness
    from redfs.client.fs.kernel_cache import KernelCache
    from redfs.client.fs.reattaching import Reattaching
    from redfs.client.fs.snapshots_folder import SnapshotsFolder
    from redfs.client.fs.vfs import Vfs

log = logging.getLogger("redfs.mount")

SWITCH_INTERVAL_S = 0.0005
"""The event loop gets the interpreter back from busy threads ten times sooner than by default."""
GC_THRESHOLD = 20_000
"""Allocations between garbage collections: requests make tuples by the thousand and hardly a cycle."""
TICK_S = 0.5
"""Between two looks for old data and waiting commits."""
MAX_REQUESTS = 200
"""FUSE requests in work. One that waits (for a lease, for room) holds its place; programs at work are far fewer."""
SHOW_END_S = 1.0
"""For the kernel to take in what it is being told, where the mount ends meanwhile: it takes microseconds."""
READ_AHEAD_KIB = 1024
"""The kernel's read-ahead, and so the size of its reads; set where root may."""


@dataclass(frozen=True)
class Options:
    """What the process is told on its command line."""

    pool: str
    volume: str
    mountpoint: Path
    foreground: bool
    read_only: bool
    relatime: bool
    shared: bool
    kernel_options: tuple[str, ...]
    log_file: Path | None
    give_up_s: float
    debug: bool


def parse(arguments: Sequence[str]) -> Options:
    """The command line. Exits with code 2 and a usage text where it is wrong."""
    parser = argparse.ArgumentParser(prog="redfs mount", description="Serves one mount of a RedFS volume.")
    parser.add_argument("--pool", required=True, help="HOST:PORT of the coordinator, or a folder of `redfs up`")
    parser.add_argument("--volume", required=True, metavar="VOLUME[@SNAPSHOT]")
    parser.add_argument("--mountpoint", required=True, type=Path, metavar="DIR")
    parser.add_argument("--foreground", action="store_true", help="stay in this terminal, log to it")
    parser.add_argument("--read-only", action="store_true", help="allow no changes")
    parser.add_argument("--relatime", action="store_true", help="let reading change access times, seldom")
    parser.add_argument("--shared", action="store_true", help="let others that say so too mount it and write")
    parser.add_argument(
        "--kernel-option", action="append", default=[], metavar="FLAG", help="noexec, suid and the like"
    )
    parser.add_argument("--log-file", type=Path, help="default: mount-VOLUME.log beside the log of redfs")
    parser.add_argument("--give-up-s", type=float, default=600.0, help="wait this long for an absent coordinator")
    parser.add_argument("--debug", action="store_true", help="log more")
    a = parser.parse_args(arguments)
    return Options(
        a.pool,
        a.volume,
        a.mountpoint,
        a.foreground,
        a.read_only,
        a.relatime,
        a.shared,
        tuple(a.kernel_option),
        a.log_file,
        a.give_up_s,
        a.debug,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the mount, or starts it in the background. The exit code."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        mountpoint = mounting.check_mountpoint(options.mountpoint)
    except RedfsError as error:
        return _say(error)
    if options.foreground:
        return _serve(options, mountpoint, lambda error: None)
    return _in_background(options, mountpoint)


def _say(error: RedfsError) -> int:
    print(f"redfs mount: {error}", file=sys.stderr)
    return error.exit_code


def _in_background(options: Options, mountpoint: Path) -> int:
    """Forks twice; the grandchild serves. Returns in the first process, once the mount answers or has failed."""
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        if answer[:1] == b"\0":
            return 0
        text = answer[1:].decode("utf-8", "replace") or "the mount process died before it could say why: see its log"
        print(f"redfs mount: {text}", file=sys.stderr)
        return answer[0] if answer else InternalError.exit_code
    os.close(reading)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)

    told = False

    def tell(error: RedfsError | None) -> None:
        nonlocal told
        if told:
            return
        told = True
        answer = b"\0" if error is None else bytes((error.exit_code,)) + str(error).encode()
        with contextlib.suppress(OSError):
            os.write(writing, answer)
        os.close(writing)

    code = InternalError.exit_code
    try:
        code = _serve(options, mountpoint, tell)
    finally:
        logging.shutdown()
        os._exit(code)


def _serve(options: Options, mountpoint: Path, tell: Callable[[RedfsError | None], None]) -> int:
    """Serves the mount to its end. `tell` is called once: with None when it answers, or with what is wrong."""
    try:
        log_file = _set_up_logging(options)
    except OSError as error:
        refused = InternalError(f"cannot write the log {error.filename}: {error.strerror}; choose another, --log-file")
        tell(refused)
        return _say(refused)
    try:
        import uvloop

        sys.setswitchinterval(SWITCH_INTERVAL_S)
        uvloop.run(_run(options, mountpoint, log_file, tell))
    except RedfsError as error:
        log.error("the mount ended: %s", error)
        tell(error)
        if options.foreground:
            _say(error)
        return error.exit_code
    except Exception as error:
        log.exception("the mount broke off")
        tell(InternalError(f"the mount broke off ({error!r}): see {log_file}"))
        if options.foreground:
            traceback.print_exc()
        return InternalError.exit_code
    return 0


def _set_up_logging(options: Options) -> str:
    handler: logging.Handler
    if options.foreground and options.log_file is None:
        handler, name = logging.StreamHandler(), "the terminal"
    else:
        safe = options.volume.replace("/", "_")
        path = (options.log_file or log_path().parent / f"mount-{safe}.log").absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        handler, name = logging.FileHandler(path), str(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if options.debug else logging.INFO)
    logging.getLogger("pyfuse3").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    return name


async def _run(options: Options, mountpoint: Path, log_file: str, tell: Callable[[RedfsError | None], None]) -> None:
    """From the session's opening to its end."""
    from redfs.client.data.cache import BlockCache
    from redfs.client.data.config import DataConfig
    from redfs.client.data.reader import BlockReader
    from redfs.client.data.store import BlockStore
    from redfs.client.fs.config import FsConfig
    from redfs.client.fs.copier import Copier
    from redfs.client.fs.following import Following
    from redfs.client.fs.kernel_cache import KernelCache
    from redfs.client.fs.reattaching import Reattaching
    from redfs.client.fs.sharing import Sharing
    from redfs.client.fs.snapshots_folder import SnapshotsFolder
    from redfs.client.fs.vfs import Vfs
    from redfs.client.node_pool import NodePool
    from redfs.client.session import CoordinatorSession, SessionConfig
    from redfs.proto.gen import cluster_pb2 as pb

    name = f"{socket.gethostname()}:{os.getpid()}:{mountpoint}"
    session = await CoordinatorSession.open(options.pool, name, config=SessionConfig(give_up_s=options.give_up_s))
    lost: str | None = None
    try:
        wanted = pb.Attach(
            name=options.volume, read_only=options.read_only or "@" in options.volume, shared=options.shared
        )
        attached = await session.call(attach=wanted)
        data_config = DataConfig()
        nodes = NodePool(session, data_config)
        cache = BlockCache(data_config.cache_bytes)
        store = BlockStore(session, attached.volume, nodes, cache, data_config)
        reader = BlockReader(session, nodes, cache, data_config)
        try:
            may_share = options.shared or attached.volume.shared
            config = FsConfig(give_up_s=options.give_up_s, relatime=options.relatime, may_share=may_share)
            vfs = Vfs(session, attached, store, reader, config)
            volume = attached.volume
            folder = (
                None
                if vfs.is_snapshot
                else SnapshotsFolder(session, volume.volume_id, volume.created_ns, store, reader, config)
            )
            kernel = KernelCache(mountpoint)
            following = Following(session, vfs, kernel)
            session.on_flush = vfs.on_flush
            session.on_hold = following.hold
            session.on_rebase = following.rebase
            sharing = Sharing(session, vfs, kernel, following)
            session.on_recall = sharing.recall
            session.on_alone = sharing.alone
            session.on_forget = sharing.forget
            session.on_moved = sharing.moved
            session.on_return_held = vfs.on_return_held
            session.on_drop_remembered = vfs.on_drop_remembered
            session.on_resumed = sharing.resumed
            reattaching = Reattaching(session, vfs, kernel, following, sharing, wanted)
            reattaching.forsake.append(store.forsake)
            if folder is not None:
                reattaching.forsake.append(folder.views.suspend)
                reattaching.resume.append(folder.views.resume)
            session.on_lapsed = reattaching.lapsed
            session.on_gone = vfs.on_gone
            vfs.on_rolled_back = following.refused
            copier = Copier(session, vfs, show=_show)
            session.on_copy = copier.on_copy
            await vfs.start()
            try:
                lost = await _serve_fuse(
                    options, mountpoint, log_file, vfs, kernel, folder, session, copier, reattaching, tell
                )
            finally:
                await kernel.close()
                await reattaching.stop()
                await following.stop()
                if folder is not None:
                    await folder.views.close()
        finally:
            await reader.close()
            await store.close()
            await nodes.close()
    finally:
        await session.close()
        mounting.remove_record(mountpoint, lost)
        log.info("%s is unmounted from %s", options.volume, mountpoint)


async def _serve_fuse(
    options: Options,
    mountpoint: Path,
    log_file: str,
    vfs: Vfs,
    kernel: KernelCache,
    folder: SnapshotsFolder | None,
    session: Any,
    copier: Copier,
    reattaching: Reattaching,
    tell: Callable[[RedfsError | None], None],
) -> str | None:
    """Mounts, serves requests until the end, flushes. Returns what could not be saved, as a message."""
    import pyfuse3

    from redfs.client.fs import fuse_loop
    from redfs.client.fs.figures import FiguresReporter
    from redfs.client.fs.fuse_adapter import FuseAdapter

    readiness = fuse_loop.enable()
    fuse_options = set(pyfuse3.default_options) | {f"fsname=redfs:{options.volume}", "subtype=redfs"}
    fuse_options.update(options.kernel_options)
    if not options.relatime:
        fuse_options.add("noatime")  # what a mount does anyway: this shows it
    if os.geteuid() == 0:
        fuse_options.add("allow_other")
    if vfs.read_only:
        fuse_options.add("ro")
    try:
        adapter = FuseAdapter(vfs, session, kernel, folder, lambda: readiness.negotiation.is_offered)
        pyfuse3.init(adapter, str(mountpoint), fuse_options)
    except RuntimeError as error:
        raise InternalError(
            f"FUSE cannot mount on {mountpoint} ({error}): is /dev/fuse there, and fuse3 installed?"
        ) from error
    ticking: asyncio.Task[None] | None = None
    reporter = FiguresReporter(session, adapter.figures)
    reattaching.forsake.append(reporter.begin_anew)
    try:
        mounting.write_record(mountpoint, options.volume, log_file)
        ending = _end_on_signals(vfs)
        ticking = asyncio.create_task(_tick(vfs, folder, reporter, adapter, readiness))
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 20)
        log.info("%s is mounted on %s", options.volume, mountpoint)
        serving = asyncio.create_task(pyfuse3.main(min_tasks=4, max_tasks=MAX_REQUESTS))
        # Answered once the kernel and this process have agreed on the protocol; before, it would undo what is set here.
        answered = asyncio.create_task(kernel.answers(is_shared=vfs.is_shared))
        await asyncio.wait({serving, answered}, return_when=asyncio.FIRST_COMPLETED)
        _read_ahead(mountpoint)
        tell(None)
        await serving
        answered.cancel()  # nobody would answer it
        await asyncio.gather(answered, return_exceptions=True)
        readiness.closing(-1)
        if ending:
            await asyncio.gather(*ending, return_exceptions=True)
    finally:
        await copier.stop()
        pyfuse3.close(unmount=True)
        await reattaching.stop()
        lost = await _save(vfs)
        if ticking is not None:
            ticking.cancel()
        await reporter.finish()
    return lost


async def _show(parent: int, name: bytes) -> None:
    """A name in a folder was made or replaced, and by no request of the kernel's: makes the kernel look again."""
    import pyfuse3

    def forget() -> None:
        with contextlib.suppress(FileNotFoundError):  # the kernel knows nothing of it
            pyfuse3.invalidate_entry(parent, name)
        with contextlib.suppress(FileNotFoundError):
            pyfuse3.invalidate_inode(parent, True)

    # In a thread, since the kernel may first wait for a request in that folder, which this loop answers. Should the
    # mount end meanwhile, the thread gets a moment: it works on what is closed then.
    forgetting = asyncio.ensure_future(asyncio.to_thread(forget))
    try:
        await asyncio.shield(forgetting)
    except asyncio.CancelledError:
        await asyncio.wait([forgetting], timeout=SHOW_END_S)
        raise


async def _save(vfs: Vfs) -> str | None:
    try:
        await vfs.close()
    except RedfsError as error:
        log.error("not everything could be saved: %s", error)
        return f"not everything that was written to '{vfs.volume_name}' could be saved: {error}"
    return None


async def _tick(
    vfs: Vfs, folder: SnapshotsFolder | None, reporter: FiguresReporter, adapter: FuseAdapter, readiness: Readiness
) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        if vfs.session.is_serving:  # else its segments may be nobody's by now, and what is written to them lost space
            vfs.tick()
        if readiness.is_unmounted():
            adapter.unmounted()
        reporter.tick()
        if folder is not None:
            folder.views.tick()


def _end_on_signals(vfs: Vfs) -> list[asyncio.Task[None]]:
    """On SIGTERM and SIGINT: saves what is dirty while programs can still see it, then ends the mount."""
    import pyfuse3

    ending: list[asyncio.Task[None]] = []

    async def end() -> None:
        try:
            await vfs.sync()
        except RedfsError as error:
            log.warning("not everything is saved yet: %s", error)
        pyfuse3.terminate()

    def begin() -> None:
        if not ending:
            log.info("asked to end: saving and unmounting")
            ending.append(asyncio.create_task(end()))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, begin)
    return ending


def _read_ahead(mountpoint: Path) -> None:
    """Lets the kernel read in larger requests. Only root may; without it reads are smaller, nothing else."""
    mounted = mounting.mounted_at(mountpoint)
    if mounted is None:
        return
    with contextlib.suppress(OSError):
        Path(f"/sys/class/bdi/{mounted.device}/read_ahead_kb").write_text(str(READ_AHEAD_KIB))


if __name__ == "__main__":
    sys.exit(main())
