"""A pool that is only dictionaries, with the meaning that the page needs: the tree's operations, refusals, files, jobs.

It refuses what the coordinator refuses, in the same kind of words, so that tests of the page need no processes. Times
count up from a day ago; nothing here waits.
"""

from __future__ import annotations

import random
import re
import time
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from redfs.core.errors import AlreadyExists, InvalidArgument, NotAllowed, NotFound

Data = dict[str, Any]

MIB = 1 << 20
GIB = 1 << 30
START_NS = time.time_ns() - 26 * 3600 * 10**9
STEP_NS = 3_600_000_000_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}\Z")
SETTINGS = ("protection", "description", "color", "compression", "minimum_nodes", "quota_bytes", "shared")


def encode(path: str) -> str:
    """As the API shows paths: percent-encoded bytes. Texts here hold odd bytes as surrogates."""
    return quote_from_bytes(path.encode("utf-8", "surrogateescape"), safe="/")


def decode(path: str) -> str:
    return unquote_to_bytes(path).decode("utf-8", "surrogateescape")


def readable(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class FakePool:
    """The pool's state. Every change calls `notify` with what changed, as the coordinator's push does."""

    def __init__(self) -> None:
        self.notify: Callable[..., None] = lambda **_: None
        self.now_ns = START_NS
        self.volumes: dict[int, Data] = {}
        self.files: dict[int, dict[str, bytes]] = {}
        self.schedules: list[Data] = []
        self.jobs: list[Data] = []
        self.scrub: Data = {"ended_ns": 0, "shards": 0, "bytes": 0, "bad": 0}
        self.copies: list[Data] = []
        self.freed_asked: list[list[str]] = []
        self.next_id = 1
        self.problems: list[str] = []
        self.nodes: list[Data] = [self._node(number) for number in range(1, 7)]
        self._add("zero", "zero", 0, description="the empty volume that all others descend from")

    # ---------------------------------------------------------------- building trees

    def _node(self, number: int) -> Data:
        used = (11 + 3 * number) * GIB
        return {
            "node_id": number, "address": f"10.0.0.{number}:7410", "state": "up", "capacity_bytes": 64 * GIB,
            "used_bytes": used, "free_bytes": 64 * GIB - used, "shards": 4200 + 37 * number,
            "damaged_shards": 0, "missing_shards": 0, "disk_failed": False,
            "backing_files": 11 + number,
            "domain": f"rack-{(number + 1) // 2}", "last_seen_s": 0.8, "data_folder": f"/srv/disk-{number}",
            "generation": 3,
        }  # fmt: skip

    def _add(self, kind: str, name: str, parent_id: int, **settings: Any) -> Data:
        volume: Data = {
            "volume_id": self.next_id, "kind": kind, "name": name, "parent_id": parent_id, "state": "ok",
            "created_ns": self.now_ns, "protection": "ec:4+2", "description": "", "color": "", "compression": "zstd",
            "minimum_nodes": 0, "mounts": [], "quota_bytes": 0, "schedule_id": 0, "origin": "", "allowed": [],
            "shared": False, "in_shared_mode": False,
            "usage": {"logical_bytes": 0, "stored_bytes": 0, "logical_alone_bytes": 0, "stored_alone_bytes": 0},
        }  # fmt: skip
        volume.update(settings)
        self.next_id += 1
        self.now_ns += STEP_NS
        self.volumes[volume["volume_id"]] = volume
        self.files[volume["volume_id"]] = dict(self.files.get(parent_id, {}))
        return volume

    def named(self, name: str) -> Data:
        for volume in self.volumes.values():
            if volume["name"] == name and volume["state"] == "ok":
                return volume
        raise NotFound(f"no {'snapshot' if '@' in name else 'volume'} is named {name!r}: `redfs tree` shows them all")

    def children(self, volume: Data) -> list[Data]:
        return [other for other in self.volumes.values() if other["parent_id"] == volume["volume_id"]]

    def snapshots(self, volume: Data) -> list[Data]:
        return [child for child in self.children(volume) if child["kind"] == "snapshot" and child["state"] == "ok"]

    def listing(self) -> list[Data]:
        """The whole tree as a reply shows it."""
        frozen = {v["parent_id"] for v in self.volumes.values() if v["kind"] == "snapshot" and v["state"] == "ok"}
        return [self.shown(volume, volume["volume_id"] in frozen) for volume in self.volumes.values()]

    def shown(self, volume: Data, has_snapshot: bool | None = None) -> Data:
        """The volume as a reply shows it: with what it allows now."""
        allowed: list[str] = []
        if volume["state"] == "ok":
            if volume["kind"] == "zero":
                allowed = ["clone"]
            elif volume["kind"] == "live":
                allowed = ["snapshot", "clone", "clone_backed", "mount", "set", "rename", "delete"]
                if self.snapshots(volume) if has_snapshot is None else has_snapshot:
                    allowed.insert(6, "rollback")
            else:
                allowed = ["mount", "clone", "restore", "set", "rename", "delete"]
        return {**volume, "allowed": allowed}

    # ---------------------------------------------------------------- operations

    def _check_name(self, name: str, what: str) -> None:
        if not _NAME.match(name):
            raise InvalidArgument(f"{name!r} is no name for a {what}: use 1 to 63 of A-Z a-z 0-9 . _ -")

    def _check_free(self, name: str) -> None:
        if any(volume["name"] == name and volume["state"] == "ok" for volume in self.volumes.values()):
            raise AlreadyExists(f"{name!r} exists already: choose another name, or delete it first")

    def create(self, name: str, **settings: Any) -> Data:
        self._check_name(name, "volume")
        self._check_free(name)
        self._check_settings(settings)
        volume = self._add("live", name, 1, **settings)
        self.notify(tree=True)
        return volume

    def snapshot(self, volume_name: str, own: str) -> Data:
        volume = self.named(volume_name)
        if volume["kind"] != "live":
            raise NotAllowed(f"{volume_name!r} cannot be snapshotted")
        self._check_name(own, "snapshot")
        name = f"{volume_name}@{own}"
        self._check_free(name)
        kept = {key: volume[key] for key in (*SETTINGS, "usage")}
        snapshot = self._add("snapshot", name, volume["volume_id"], **kept)
        self.notify(tree=True)
        return snapshot

    def clone(self, source_name: str, name: str, backed: bool = False, snapshot: str = "", **settings: Any) -> Data:
        source = self.named(source_name)
        self._check_name(name, "volume")
        self._check_free(name)
        self._check_settings(settings)
        if backed:
            source = self.snapshot(source_name, snapshot or name)
        kept = {key: source[key] for key in (*SETTINGS, "usage")}
        clone = self._add("live", name, source["volume_id"], **{**kept, **settings})
        self.notify(tree=True)
        return clone

    def _check_settings(self, settings: Data) -> None:
        protection = settings.get("protection", "ec:4+2")
        if protection and not re.fullmatch(r"single|raid[56]|mirror:\d+|ec:\d+\+\d+", protection):
            raise InvalidArgument(f"{protection!r} is no protection policy: use ec:K+M, mirror:N or single")

    def set(self, name: str, changes: Data) -> Data:
        volume = self.named(name)
        if volume["kind"] == "snapshot" and changes.keys() - {"description", "color"}:
            raise NotAllowed(f"{name!r} is a snapshot: only its description and color can change")
        self._check_settings(changes)
        volume.update(changes)
        self.notify(tree=True)
        return volume

    def rename(self, name: str, new_name: str) -> Data:
        volume = self.named(name)
        self._check_name(new_name.partition("@")[2] or new_name, "volume")
        self._check_free(new_name)
        for snapshot in self.snapshots(volume) if volume["kind"] == "live" else []:
            snapshot["name"] = f"{new_name}@{snapshot['name'].partition('@')[2]}"
        volume["name"] = new_name
        self.notify(tree=True, schedules=True)
        return volume

    def delete(self, name: str, confirm: str) -> Data:
        volume = self.named(name)
        if volume["kind"] == "zero":
            raise NotAllowed("the zero volume can only be cloned, it cannot be deleted")
        if confirm != name:
            raise InvalidArgument(f"deleting {name!r} needs its name as ?confirm={name}")
        volume["state"] = "deleted"
        volume["mounts"] = []
        self.prune()
        self.notify(tree=True, jobs=True)
        return volume

    def prune(self) -> None:
        """Deleted nodes from which nothing descends leave the tree."""
        while gone := [v for v in self.volumes.values() if v["state"] == "deleted" and not self.children(v)]:
            for volume in gone:
                del self.volumes[volume["volume_id"]]

    def roll_back(self, name: str, confirm: str, keep: str = "", discard: bool = False) -> Data:
        volume_name = name.partition("@")[0]
        snapshot, volume = self.named(name), self.named(volume_name)
        if confirm != volume_name:
            raise InvalidArgument(f"rolling {volume_name!r} back needs its name as confirm")
        kept = None if discard else self.snapshot(volume_name, keep or "before-rollback-20251124-220000")
        self.files[volume["volume_id"]] = dict(self.files[snapshot["volume_id"]])
        self.notify(tree=True)
        return {"volume": self.shown(volume), "kept": kept and self.shown(kept), "coordinator_ms": 0.4}

    def set_schedule(self, volume: str, label: str, every_s: int, keep: int) -> Data:
        self.named(volume)
        self._check_name(label, "schedule")
        if every_s < 60:
            raise InvalidArgument("a schedule takes a snapshot every minute at most")
        found = next((s for s in self.schedules if (s["volume"], s["label"]) == (volume, label)), None)
        if found is None:
            found = {"volume": volume, "label": label, "schedule_id": 100 + len(self.schedules), "last_error": ""}
            self.schedules.append(found)
        found.update(every_s=every_s, keep=keep, next_ns=self.now_ns + every_s * 10**9)
        self.notify(schedules=True)
        return found

    def remove_schedule(self, volume: str, label: str) -> Data:
        found = next((s for s in self.schedules if (s["volume"], s["label"]) == (volume, label)), None)
        if found is None:
            raise NotFound(f"{volume!r} has no schedule {label!r}")
        self.schedules.remove(found)
        self.notify(schedules=True)
        return found

    def start_job(self, kind: str) -> Data:
        job: Data = {
            "job_id": 1 + len(self.jobs), "kind": kind, "state": "waiting", "subject": "all shards", "done": 0,
            "done_bytes": 0, "total_bytes": 0, "rate": 0.0, "left_s": -1.0, "started_ns": self.now_ns,
            "volume_id": 0, "allowed": ["pause", "cancel"],
        }  # fmt: skip
        self.jobs.append(job)
        self.notify(jobs=True)
        return job

    def control_job(self, job_id: int, action: str) -> Data:
        job = next((job for job in self.jobs if job["job_id"] == job_id), None)
        if job is None:
            raise NotFound(f"there is no job {job_id}")
        if action not in job["allowed"]:
            raise NotAllowed(f"job {job_id} is {job['state']}: it cannot {action}")
        if action == "cancel":
            self.jobs.remove(job)
        else:
            paused = action == "pause"
            job.update(state="paused" if paused else "running", allowed=["resume" if paused else "pause", "cancel"])
        self.notify(jobs=True)
        return job

    def add_job(self, subject: str, done: float, *, allowed: tuple[str, ...] = ("pause", "cancel")) -> Data:
        total = 40 * GIB
        job: Data = {
            "job_id": 1 + len(self.jobs), "kind": "reclaim", "state": "running", "subject": subject, "done": 81234,
            "done_bytes": int(total * done), "total_bytes": total, "rate": 180.0 * MIB, "left_s": 143.0,
            "started_ns": self.now_ns, "volume_id": 0, "allowed": list(allowed),
        }  # fmt: skip
        self.jobs.append(job)
        self.notify(jobs=True)
        return job

    # ---------------------------------------------------------------- files

    def browse(self, name: str, path: str) -> list[Data]:
        files = self.files[self.named(name)["volume_id"]]
        top = path.rstrip("/") + "/"
        if top != "/" and not any(file.startswith(top) for file in files):
            raise NotFound(f"{name} has no folder {path}")
        entries: dict[str, Data] = {}
        for file, content in files.items():
            if not file.startswith(top):
                continue
            own, _, below = file[len(top) :].partition("/")
            entry = entries.setdefault(own, self._entry(top + own, "folder" if below else "file", content))
            entry["size"] += 1 if below else 0
        # A folder's own order is that of its names' hashes.
        return sorted(entries.values(), key=lambda entry: zlib.crc32(entry["path"].encode()))

    def _entry(self, path: str, kind: str, content: bytes) -> Data:
        mode = 0o755 if kind == "folder" else 0o644
        size = len(content) if kind == "file" else 0
        changed = START_NS - (sum(content) % 97) * STEP_NS
        return {
            "name": readable(path.rpartition("/")[2]), "path": encode(path), "kind": kind, "size": size,
            "mtime_ns": changed, "mode": mode, "uid": 1000, "gid": 1000, "target": None,
        }  # fmt: skip

    def versions(self, volume_name: str, path: str) -> list[Data]:
        volume = self.named(volume_name)
        nodes = [*sorted(self.snapshots(volume), key=lambda v: int(v["created_ns"])), volume]
        found: list[Data] = []
        before: bytes | None = None
        for number, node in enumerate(nodes):
            content = self.files[node["volume_id"]].get(path)
            kind = "file"
            if content is None and any(f.startswith(path + "/") for f in self.files[node["volume_id"]]):
                content, kind = b"", "folder"
            found.append(
                {
                    "node": node["name"], "volume_id": node["volume_id"], "created_ns": node["created_ns"],
                    "exists": content is not None, "kind": None if content is None else kind,
                    "size": len(content or b""),
                    "mtime_ns": None if content is None else START_NS - (sum(content) % 97) * STEP_NS,
                    "same_as_previous": None if content is None or number == 0 else content == before,
                }
            )  # fmt: skip
            before = content
        return found

    def copy(self, source: str, source_path: str, target: str, target_path: str, replace: bool = False) -> Data:
        files = self.files[self.named(source)["volume_id"]]
        there = self.files[self.named(target)["volume_id"]]
        chosen = {f: c for f, c in files.items() if f == source_path or f.startswith(source_path.rstrip("/") + "/")}
        if not chosen:
            raise NotFound(f"{source} has no {source_path}")
        if target_path in there and not replace:
            raise AlreadyExists(f"{target}:{target_path} exists already: choose another name, or replace it")
        for file, content in chosen.items():
            there[target_path + file[len(source_path) :]] = content
        self.copies.append({"source": source, "source_path": source_path, "target": target, "target_path": target_path})
        self.notify(tree=True)
        total = sum(map(len, chosen.values()))
        return {"files": len(chosen), "bytes": total, "path": encode(target_path), "unattended": False}

    def diff(self, before: str, after: str) -> list[Data]:
        old = self.files[self.named(before)["volume_id"]]
        new = self.files[self.named(after)["volume_id"]]
        entries: list[Data] = []
        for path in sorted(old.keys() | new.keys()):
            if old.get(path) == new.get(path):
                continue
            change = "created" if path not in old else "deleted" if path not in new else "modified"
            entries.append(
                {
                    "change": change, "path": encode(path), "name": readable(path), "new_path": "", "new_name": "",
                    "kind": "file", "content": True, "attributes": False, "before_bytes": len(old.get(path, b"")),
                    "after_bytes": len(new.get(path, b"")),
                }
            )  # fmt: skip
        return entries

    def freed(self, names: list[str]) -> Data:
        self.freed_asked.append(names)
        usages = [self.named(name)["usage"] for name in names]
        logical = sum(usage["logical_alone_bytes"] for usage in usages)
        stored = sum(usage["stored_alone_bytes"] for usage in usages)
        return {"logical_bytes": logical, "unique_bytes": logical, "stored_bytes": stored, "segment_bytes": 0}

    def status(self) -> Data:
        up = [node for node in self.nodes if node["state"] == "up"]
        total = {key: sum(node[key] for node in self.nodes) for key in ("capacity_bytes", "used_bytes", "free_bytes")}
        return {
            "pool_id": "5d0c", "health": "degraded" if self.problems or len(up) < len(self.nodes) else "ok",
            "problems": self.problems, "nodes_up": len(up), "nodes_total": len(self.nodes), **total,
            "logical_bytes": 212 * GIB, "unique_bytes": 131 * GIB, "stored_bytes": 88 * GIB,
            "segment_bytes": 132 * GIB, "charged_bytes": 140 * GIB, "blocks": 1_200_000, "segments": 16_000,
            "volumes": len(self.volumes), "sessions": 3, "mounts": 3, "jobs": self.jobs,
            "uptime_s": 9000.0, "shards_to_delete": 0,
            "commits": 4242, "transactions": 900, "damage_reports": 0, "requests": 123_456, "figures": {},
            "scrub": self.scrub,
        }  # fmt: skip


# ---------------------------------------------------------------- trees


def _fill(volume: Data, logical: float, alone: float) -> None:
    volume["usage"] = {
        "logical_bytes": int(logical * GIB), "stored_bytes": int(logical * GIB * 0.64),
        "logical_alone_bytes": int(alone * GIB), "stored_alone_bytes": int(alone * GIB * 0.64),
    }  # fmt: skip


def small_pool() -> FakePool:
    """A handful of volumes as people have them: snapshots, both kinds of clones, a deleted node, a mount."""
    pool = FakePool()
    photos = pool.create("photos", color="#3a5fd0", description="The family's pictures since 1998")
    files = pool.files[photos["volume_id"]]
    files.update({f"/2024/img-{n:04}.jpg": bytes([n % 251]) * (1000 + n) for n in range(40)})
    files.update(
        {"/notes.txt": b"first thoughts\n", "/albums/summer/list.txt": b"a\nb\n", "/albums/winter/list.txt": b"c\n"}
    )
    files.update({"/albums/50% off/caf\udce9 menu.txt": b"odd bytes in its name\n"})
    mail = pool.create("mail", color="#237a4b", description="Everybody's mailboxes", protection="mirror:3")
    pool.files[mail["volume_id"]].update({"/inbox/1.eml": b"hello", "/inbox/2.eml": b"again"})
    pool.snapshot("photos", "monday")
    files["/notes.txt"] = b"first thoughts\nand second ones\n"
    files["/2024/img-0040.jpg"] = bytes(5000)
    builds = pool.create("builds", color="#c4501a", description="Nightly builds", compression="none")
    pool.files[builds["volume_id"]].update({"/app/bin/app": bytes(70_000), "/app/README": b"Start it.\n"})
    pool.snapshot("photos", "tuesday")
    del files["/albums/winter/list.txt"]
    pool.snapshot("mail", "before-upgrade")
    pool.clone("photos@monday", "try-it", color="#a545b5", description="Trying another order of albums")
    pool.snapshot("builds", "v1.0")
    release = pool.clone("builds@v1.0", "release", color="#e0a526", description="What is shipped")
    pool.clone("photos", "raw-edit", color="#2579b8", backed=True, snapshot="edit-base")
    pool.clone("mail", "mail-test", color="#17787d")
    pool.snapshot("release", "shipped")
    pool.clone("release@shipped", "hotfix", color="#c73e77")
    files["/notes.txt"] = b"everything anew\n"
    photos["mounts"] = ["laptop:4312:/home/ada/photos"]
    builds["mounts"] = ["ci-1:811:/srv/builds"]
    photos["quota_bytes"] = 200 * GIB
    release["state"] = "deleted"
    for index, volume in enumerate(list(pool.volumes.values())[1:]):
        _fill(volume, 18 + 7 * (index % 5), 0.4 + 1.7 * (index % 4))
    pool.schedules.append(
        {
            "volume": "photos", "label": "hourly", "every_s": 3600, "keep": 24, "next_ns": pool.now_ns,
            "schedule_id": 9, "last_error": "",
        }
    )  # fmt: skip
    return pool


def large_pool(nodes: int, seed: int = 7) -> FakePool:
    """A tree of `nodes` nodes, grown by any operations in any order."""
    pool = FakePool()
    chance = random.Random(seed)
    colors = ["", "#3a5fd0", "#237a4b", "#c4501a", "#a545b5", "#e0a526", "#17787d", "#c73e77", "#c8352b"]
    live = [pool.create("vol-0", color=colors[1])]
    snapshots: list[Data] = []
    while len(pool.volumes) < nodes + 1:
        number = len(pool.volumes)
        roll = chance.random()
        settings: Data = {"color": chance.choice(colors)}
        if roll < 0.07:
            live.append(_grow(pool, "live", f"vol-{number}", 1, settings))
        elif roll < 0.82 or not snapshots:
            volume = chance.choice(live[-9:])
            own = f"s{number}" if chance.random() < 0.6 else f"hourly-{number:05}"
            kept = {"color": volume["color"]}
            snapshots.append(_grow(pool, "snapshot", f"{volume['name']}@{own}", volume["volume_id"], kept))
        else:
            parent = chance.choice(snapshots if roll < 0.95 else live)
            live.append(_grow(pool, "live", f"clone-{number}", parent["volume_id"], settings))
    for volume in chance.sample(live, len(live) // 12):
        volume["mounts"] = ["host:1:/mnt"]
    for volume in chance.sample(live + snapshots, nodes // 20):
        if any(other["parent_id"] == volume["volume_id"] for other in pool.volumes.values()):
            volume["state"] = "deleted"
            volume["mounts"] = []
    return pool


def _grow(pool: FakePool, kind: str, name: str, parent_id: int, settings: Data) -> Data:
    """As the operations do, without their look-ups by name, which would make large trees slow to make."""
    return pool._add(kind, name, parent_id, **settings)
