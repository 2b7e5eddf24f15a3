"""Runs schedules on a rig, and judges what the programs saw.

Each schedule works in a folder of its own. When its programs are done, or their time is up, every fault is undone, all
hosts are mounted and must work again by themselves; then everybody looks at everything, and the checkers get the whole
history. A schedule's outcome is a list of problems, empty where all is well; what cannot be decided is told apart.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hosts.appends import check_appends
from tests.hosts.history import UNKNOWN, Op, read_history
from tests.hosts.names import NAMES, check_names
from tests.hosts.network import NetworkFailed
from tests.hosts.registers import check_registers
from tests.hosts.rig import NODES, POLL_S, WAIT_S, Rig, RigFailed
from tests.hosts.schedule import HOSTS, LEASE_S, REGISTERS, WORKERS_PER_HOST, Fault, Schedule, draw

PROGRAMS_S = 90.0
"""For the programs, which take some seconds, and longer than a lease where their host is cut off."""
SAME_S = 20.0
"""For the last effects of operations that nobody waits for any more."""
QUICK_CHECK_S = 2.0
"""A check that is quicker than this is made after every schedule."""
CHECK_EVERY = 10
MUTE_S = 0.03
"""Long enough for the answers to some operations to be lost, shorter than it takes until they are sent again."""
BETWEEN_S = 0.2
"""For new connections, and some operations over them."""
LAPSED = b"lapsed"
"""What a mount's log says when the coordinator has ended its session."""
LAST_STEP = 100_000
"""The number of a program's first operation after the faults."""


@dataclass
class Outcome:
    """Of one schedule."""

    seed: int
    problems: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    operations: int = 0
    unknown: int = 0
    seconds: float = 0.0
    kept: Path | None = None
    """Where history and logs of a failure are."""


class Faults:
    """Makes the faults of a schedule, each host's and the pool's in a thread of their own."""

    def __init__(self, rig: Rig, schedule: Schedule) -> None:
        self._rig = rig
        self._schedule = schedule
        self._stop = threading.Event()
        self.problems: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, args=(host, faults), name=f"faults of host {host}")
            for host, faults in enumerate(schedule.of_hosts)
            if faults
        ]
        if schedule.of_pool:
            self._threads.append(threading.Thread(target=self._run, args=(-1, schedule.of_pool), name="pool faults"))

    def start(self, start_s: float) -> None:
        """Faults begin at their times after `start_s`."""
        self._start_s = start_s
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Cuts what goes on short, begins nothing more, and waits until everything is undone."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def finish(self) -> None:
        """Waits until all of them have been made and undone."""
        for thread in self._threads:
            thread.join()

    def _run(self, host: int, faults: Sequence[Fault]) -> None:
        for fault in faults:
            if self._stop.wait(max(0.0, self._start_s + fault.at_s - time.monotonic())):
                return
            try:
                self._make(host, fault)
            except Exception as error:  # noqa: BLE001  # in a thread of its own nobody else would see it
                self.problems.append(f"{fault.kind} of {'the pool' if host < 0 else f'host {host}'}: {error!r}")
                return

    def _make(self, host: int, fault: Fault) -> None:
        rig = self._rig
        if fault.kind == "cut":
            rig.network.cut(host)
            self._stop.wait(fault.for_s)
            rig.network.join(host)
        elif fault.kind == "slow":
            rig.network.slow_down(host, fault.delay_s, fault.loss, self._schedule.seed)
            self._stop.wait(fault.for_s)
            rig.network.speed_up(host)
        elif fault.kind == "mute":
            self._lose_answers(host, fault.for_s)
        elif fault.kind == "freeze":
            rig.signal_mount(host, signal.SIGSTOP)
            self._stop.wait(fault.for_s)
            rig.signal_mount(host, signal.SIGCONT)
        elif fault.kind == "kill":
            rig.kill_mount(host)
            rig.stand_still(host)
            rig.clear_mount(host)
            self._stop.wait(fault.for_s)
            rig.mount(host)
            rig.go_on(host)
        elif fault.kind == "away":
            rig.stand_still(host)
            if rig.is_mounted(host):
                rig.unmount(host)
            self._stop.wait(fault.for_s)
            rig.mount(host)
            rig.go_on(host)
        elif fault.kind == "node":
            rig.kill(f"node-{fault.node}")
            self._stop.wait(fault.for_s)
            rig.start_node(fault.node)
        elif fault.kind == "coordinator":
            if fault.mute_s:
                for each in range(HOSTS):
                    rig.network.mute(each)
                self._stop.wait(fault.mute_s)
            rig.kill("coordinator")
            for each in range(HOSTS):
                rig.network.unmute(each)
                rig.network.reset(each)
            self._stop.wait(fault.for_s)
            rig.start_coordinator()
        else:
            raise ValueError(fault.kind)

    def _lose_answers(self, host: int, for_s: float) -> None:
        """Again and again: each time it is chance whether a change is under way, and not a question."""
        end_s = time.monotonic() + for_s
        while time.monotonic() < end_s and not self._stop.is_set():
            self._rig.network.mute(host)
            self._stop.wait(MUTE_S)
            # In this order, so that the host learns of the end at once. What was lost is sent again only later.
            self._rig.network.unmute(host)
            self._rig.network.reset(host)
            self._stop.wait(BETWEEN_S)


class Runner:
    """Runs one schedule after the other."""

    def __init__(self, rig: Rig, keep: Path) -> None:
        self._rig = rig
        self._keep = keep
        self._check_s = 0.0
        self._count = 0
        self._checked = True

    def run(self, seed: int) -> Outcome:
        """One schedule."""
        schedule = draw(seed, NODES)
        began_s = time.monotonic()
        self._count += 1
        outcome = Outcome(seed)
        work = self._rig.folder / f"seed-{seed}"
        work.mkdir()
        logs = {path: path.stat().st_size for path in (self._rig.folder / "log").glob("*.log")}
        try:
            self._run(schedule, work, outcome, logs)
        except (RigFailed, NetworkFailed) as error:
            outcome.problems.append(f"the schedule did not come to its end: {error}")
        outcome.seconds = time.monotonic() - began_s
        if outcome.problems or outcome.undecided:
            outcome.kept = self._keep_all(schedule, work, outcome, logs)
        shutil.rmtree(work)
        return outcome

    # ------------------------------------------------------------ one schedule

    def _run(self, schedule: Schedule, work: Path, outcome: Outcome, logs: dict[Path, int]) -> None:
        rig = self._rig
        late = {host for host, faults in enumerate(schedule.of_hosts) if faults and faults[0].at_s == 0.0}
        present = next(host for host in range(HOSTS) if host not in late)
        for host in sorted(late):
            rig.stand_still(host)
            rig.unmount(host)
        rig.hand(present).do({"order": "prepare", "folder": self._folder(present, schedule)})
        faults = Faults(rig, schedule)
        hands = {number: rig.hand(p.host, p.slot) for number, p in enumerate(schedule.programs)}
        for number, program in enumerate(schedule.programs):
            hands[number].ask(
                {
                    "order": "run",
                    "folder": self._folder(program.host, schedule),
                    "careful": schedule.careful,
                    "worker": number,
                    "history": str(work / f"history-{number}"),
                    "first": 0,
                    "actions": program.actions,
                }
            )
        faults.start(time.monotonic())
        deadline = time.monotonic() + PROGRAMS_S
        hung = []
        for hand in hands.values():
            answer = hand.answer(deadline - time.monotonic())
            if answer is None:
                hung.append(hand)
            elif "error" in answer:
                outcome.problems.append(f"worker {hand.number}: {answer['error']}")
        if hung:
            faults.end()
        else:
            faults.finish()
        outcome.problems += faults.problems
        rig.network.heal()
        for hand in hung:
            outcome.problems.append(f"a program on host {hand.host} hangs, {PROGRAMS_S:.0f} s after its beginning")
            rig.kill_mount(hand.host)
            hand.renew()
        self._mount_all(outcome)
        self._wait_until_all_work(schedule)
        self._look(schedule, work, outcome)
        self._judge(schedule, work, outcome, logs)
        self._tidy(schedule, outcome)

    def _folder(self, host: int, schedule: Schedule) -> str:
        return str(self._rig.mounts[host] / f"seed-{schedule.seed}")

    def _mount_all(self, outcome: Outcome) -> None:
        rig = self._rig
        for host in range(HOSTS):
            rig.signal_mount(host, signal.SIGCONT)
            if not rig.is_mounted(host):
                if not outcome.problems:
                    outcome.problems.append(f"the mount of host {host} has ended by itself")
                rig.stand_still(host)
                rig.clear_mount(host)
                rig.mount(host)
            rig.go_on(host)

    def _wait_until_all_work(self, schedule: Schedule) -> None:
        """A host that was cut off works again by itself, and sees what is there."""
        for host in range(HOSTS):
            order = {"order": "look", "folder": self._folder(host, schedule), "log": "/dev/null"}
            deadline = time.monotonic() + WAIT_S
            while True:
                hand = self._rig.hand(host)
                try:
                    hand.do(order, deadline - time.monotonic())
                    break
                except RigFailed:
                    if time.monotonic() > deadline:
                        self._rig.kill_mount(host)
                        hand.renew()
                        raise
                    time.sleep(POLL_S)

    def _look(self, schedule: Schedule, work: Path, outcome: Outcome) -> None:
        """Everybody looks at everything, as operations of the history, and sees the same."""
        last: list[tuple[float, str, tuple[Any, ...], bool]] = [(0.0, "list", (), True)]
        last += [(0.0, "stat", (name,), False) for name in NAMES]
        last += [(0.0, "read", (register,), False) for register in REGISTERS]
        last += [(0.0, "size", ("sized",), False), (0.0, "read_log", ("log",), False)]
        for host in range(HOSTS):
            self._rig.hand(host).do(
                {
                    "order": "run",
                    "folder": self._folder(host, schedule),
                    "careful": False,
                    "worker": HOSTS * WORKERS_PER_HOST + host,
                    "history": str(work / f"history-{HOSTS * WORKERS_PER_HOST + host}"),
                    "first": LAST_STEP,
                    "actions": last,
                }
            )
        deadline = time.monotonic() + SAME_S
        while True:
            seen = [
                self._rig.hand(host).do(
                    {
                        "order": "look",
                        "folder": self._folder(host, schedule),
                        "log": str(work / f"log-{host}"),
                    }
                )["seen"]
                for host in range(HOSTS)
            ]
            if all(one == seen[0] for one in seen):
                return
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        for path in sorted(set().union(*seen)):
            if len({json.dumps(one.get(path)) for one in seen}) > 1:
                outcome.problems.append(f"hosts see {path} differently: {[one.get(path) for one in seen]}")

    def _judge(self, schedule: Schedule, work: Path, outcome: Outcome, logs: dict[Path, int]) -> None:
        ops = _history(work)
        outcome.operations = len(ops)
        outcome.unknown = sum(op.is_unknown for op in ops)
        hosts = {number: program.host for number, program in enumerate(schedule.programs)}
        hosts |= {HOSTS * WORKERS_PER_HOST + host: host for host in range(HOSTS)}
        found = check_names(ops) + check_registers(ops, hosts)
        found += check_appends(ops, (work / "log-0").read_bytes())
        outcome.undecided += [problem for problem in found if "undecided" in problem]
        outcome.problems += [problem for problem in found if "undecided" not in problem]
        for number, program in enumerate(schedule.programs):
            log = self._rig.log_of(f"host-{program.host}")
            if _may_fail(schedule.of_hosts[program.host], _new_part(log, logs)):
                continue
            failed = [op for op in ops if op.worker == number and op.error in UNKNOWN]
            outcome.problems += [f"failed, though its host was away only for less than a lease: {op}" for op in failed]

    def _tidy(self, schedule: Schedule, outcome: Outcome) -> None:
        with contextlib.suppress(RigFailed):
            self._rig.hand(0).do({"order": "remove", "folder": self._folder(0, schedule)})
        self._checked = self._check_s < QUICK_CHECK_S or self._count % CHECK_EVERY == 0
        if self._checked:
            outcome.problems += self.check()

    def check(self) -> list[str]:
        """`redfs check` of the whole pool, all of whose nodes must be up."""
        began_s = time.monotonic()
        with self._rig.pool() as pool:
            deadline = began_s + WAIT_S
            while sum(node.state == "up" for node in pool.nodes()) < NODES and time.monotonic() < deadline:
                time.sleep(POLL_S)
        began_s = time.monotonic()
        problems = [f"redfs check: {problem}" for problem in self._rig.check()]
        self._check_s = time.monotonic() - began_s
        return problems

    # ------------------------------------------------------------ what is kept of a failure

    def _keep_all(self, schedule: Schedule, work: Path, outcome: Outcome, logs: dict[Path, int]) -> Path:
        kept = self._keep / f"seed-{schedule.seed}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(work, kept)
        for path in (self._rig.folder / "log").glob("*.log"):
            (kept / path.name).write_bytes(_new_part(path, logs))
        ops = _history(work)
        lines = [f"seed {schedule.seed}: {schedule.describe()}", "", *outcome.problems, *outcome.undecided, ""]
        lines += [str(op) for op in sorted(ops, key=lambda op: op.start_ns)]
        (kept / "history.txt").write_text("\n".join(lines) + "\n")
        return kept


def _history(work: Path) -> list[Op]:
    """Of all programs, and of those that looked at everything in the end."""
    numbers = range(HOSTS * WORKERS_PER_HOST + HOSTS)
    return [op for number in numbers for op in read_history(number, work / f"history-{number}")]


def _new_part(log: Path, before: dict[Path, int]) -> bytes:
    """What was written to a log since it was so long."""
    with log.open("rb") as file:
        file.seek(before.get(log, 0))
        return file.read()


def _may_fail(faults: Sequence[Fault], log: bytes) -> bool:
    """Whether operations on a host with such faults may fail: when its mount was killed, or its lease was over, which
    on a machine that is busy enough also a short fault leads to."""
    return any(fault.kind == "kill" or fault.for_s > LEASE_S / 2 for fault in faults) or LAPSED in log
