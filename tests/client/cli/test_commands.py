"""Each command against a fake coordinator: what it asks, what it prints, what it ends with."""

from __future__ import annotations

import pytest

from redfs.proto.gen import cluster_pb2 as pb
from tests.client.cli.conftest import CommandLine
from tests.client.cli.fake_coordinator import FakeCoordinator

pytestmark = pytest.mark.usefixtures("coordinator")


def test_a_volume_is_created_listed_changed_renamed_and_deleted(
    redfs: CommandLine, coordinator: FakeCoordinator
) -> None:
    made = redfs("volume", "create", "photos", "--protect", "mirror:3", "--color", "cyan", "--description", "ours")
    assert (made.code, made.out) == (0, "Created photos, protected as mirror:3\n")
    assert coordinator.calls[-1] == pb.VolumeCreate(
        name="photos", protection="mirror:3", color="cyan", description="ours"
    )
    assert redfs("volume", "ls").out.splitlines()[0].split() == [
        "VOLUME", "SIZE", "ALONE", "PROTECTION", "CREATED", "STATE", "DESCRIPTION",
    ]  # fmt: skip
    assert "photos" in redfs("volume", "ls").out
    assert redfs("volume", "set", "photos", "--minimum-nodes", "2", "--description", "").code == 0
    changed = coordinator.calls[-1]
    assert changed.HasField("minimum_nodes")
    assert changed.HasField("description"), "an empty text clears it"
    assert not changed.HasField("protection")
    assert redfs("volume", "rename", "photos", "pictures").out == "Renamed photos to pictures\n"
    assert "mirror:3" in redfs("volume", "info", "pictures").out
    assert redfs("volume", "rm", "pictures", "--yes").code == 0
    assert list(coordinator.volumes) == ["zero"]


def test_nothing_is_deleted_without_a_yes(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    redfs("volume", "create", "photos")
    redfs("snapshot", "create", "photos@one")
    for words in (("volume", "rm", "photos"), ("snapshot", "rm", "photos@one")):
        refused = redfs(*words)
        assert refused.code == 2
        assert "--yes" in refused.err
    assert {"photos", "photos@one"} <= set(coordinator.volumes)


def test_a_clone_is_told_what_differs_from_its_source(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    redfs("volume", "create", "photos")
    made = redfs("clone", "photos", "try-it", "--backed", "--color", "red")
    assert made.out == "Created try-it as a clone of photos@try-it\n"
    wanted = pb.VolumeClone(source="photos", name="try-it", backed=True, settings=pb.VolumeSet(color="#c8352b"))
    assert coordinator.calls[-1] == wanted
    assert redfs("clone", "photos", "other").out == "Created other as a clone of photos\n"
    assert "--backed" in redfs("clone", "photos", "third", "--snapshot", "s").err
    assert redfs("clone", "photos", "third", "--color", "no-such").code == 2
    assert "third" not in coordinator.volumes
    redfs("clone", "photos", "third", "--color", "Teal")
    assert coordinator.calls[-1].settings.color == "#17787d"


def test_rolling_back_says_what_is_kept_and_asks_before_it_discards(
    redfs: CommandLine, coordinator: FakeCoordinator
) -> None:
    redfs("volume", "create", "photos")
    redfs("snapshot", "create", "photos@one")
    done = redfs("rollback", "photos@one", "--keep", "two")
    assert done.out == "photos is what photos@one is; what it held is kept as photos@two\n"
    refused = redfs("rollback", "photos@one", "--discard")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert coordinator.calls[-1] == pb.VolumeRollback(snapshot="photos@one", keep="two")
    assert redfs("rollback", "photos@one", "--discard", "--yes", "--json").json()["kept"] is None
    assert "VOLUME@SNAPSHOT" in redfs("rollback", "photos").err
    assert redfs("rollback", "photos@none").code == 3


def test_deleting_says_who_has_it_mounted_and_what_descends_from_it(
    redfs: CommandLine, coordinator: FakeCoordinator
) -> None:
    redfs("volume", "create", "photos")
    redfs("snapshot", "create", "photos@one")
    coordinator.volumes["photos"].mounts.append("host:1:/mnt")
    refused = redfs("volume", "rm", "photos")
    assert "mounted by host:1:/mnt" in refused.err
    assert "1 that descend from photos stay" in refused.err
    assert redfs("volume", "rm", "photos", "--yes").code == 0
    assert coordinator.calls[-1] == pb.VolumeDelete(name="photos", force=True)
    redfs("snapshot", "rm", "photos@one", "--yes")
    assert coordinator.calls[-1] == pb.VolumeDelete(name="photos@one")


def test_a_volume_can_be_made_one_that_hosts_share(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    redfs("volume", "create", "photos", "--shared")
    assert coordinator.calls[-1] == pb.VolumeCreate(name="photos", shared=True)
    coordinator.volumes["photos"].shared = True
    coordinator.volumes["photos"].in_shared_mode = True
    info = redfs("volume", "info", "photos").out.splitlines()
    assert any(line.startswith("shared ") for line in info)
    assert any(line.startswith("mode ") and "shared" in line for line in info)
    redfs("volume", "set", "photos", "--no-shared")
    assert coordinator.calls[-1] == pb.VolumeSet(name="photos", shared=False)
    redfs("clone", "photos", "other", "--no-shared")
    assert coordinator.calls[-1] == pb.VolumeClone(source="photos", name="other", settings=pb.VolumeSet(shared=False))
    assert "--shared" in redfs("volume", "set", "photos").err


def test_verbs_refuse_what_the_other_noun_is_for(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    redfs("volume", "create", "photos")
    redfs("snapshot", "create", "photos@one")
    assert "snapshot rm" in redfs("volume", "rm", "photos@one", "--yes").err
    assert "VOLUME@SNAPSHOT" in redfs("snapshot", "rm", "photos", "--yes").err
    assert redfs("snapshot", "create", "photos").code == 2
    assert redfs("volume", "set", "photos").code == 2
    assert {"photos", "photos@one"} <= set(coordinator.volumes)


def test_the_tree_shows_who_descends_from_whom(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    redfs("volume", "create", "photos")
    redfs("snapshot", "create", "photos@one")
    redfs("clone", "photos@one", "try-it")
    coordinator.volumes["try-it"].mounts.append("host:1:/mnt")
    coordinator.volumes["photos@one"].state = "deleted"
    lines = redfs("tree").out.splitlines()
    assert lines[0] == "zero"
    assert [line.strip("│├└─ ").split()[0] for line in lines[1:]] == ["photos", "photos@one", "try-it"]
    indents = [len(line) - len(line.lstrip("│├└─ ")) for line in lines]
    assert indents == sorted(set(indents)), "each one step further in"
    assert lines[2].endswith("deleted")
    assert "mounted" in lines[3]
    assert [v["name"] for v in redfs("tree", "--json").json()] == ["zero", "photos", "photos@one", "try-it"]


def test_a_tree_of_any_depth_is_drawn(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    for number in range(2, 302):
        coordinator.volumes[f"v{number}"] = pb.Volume(
            volume_id=number, parent_id=number - 1, kind="live", name=f"v{number}", state="ok", created_ns=number
        )
    assert len(redfs("tree").out.splitlines()) == 301


def test_status_is_for_people_and_for_programs(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    coordinator.status = pb.PoolStatus(
        pool_id="fake",
        health="degraded",
        problems=["node 1 is down"],
        nodes_up=5,
        nodes_total=6,
        logical_bytes=4 << 30,
        unique_bytes=2 << 30,
        stored_bytes=1 << 30,
        segment_bytes=3 << 29,
        uptime_s=7500,
        jobs=[pb.Job(job_id=1, kind="reclaim", state="running", subject="photos@one", done=1234)],
        shards_to_delete=7,
    )
    coordinator.nodes[0].state = "down"
    coordinator.nodes[0].last_seen_s = 65
    out = redfs("status").out
    for text in ("degraded", "5 of 6 nodes up", "node 1 is down", "2 h 5 min", "4.0 GiB", "50 % saved", "1.5 GiB"):
        assert text in out
    for text in ("reclaim", "1,234 rows done", "7 shards left", "down, seen 1 min 5 s ago"):
        assert text in out
    assert not any(line.endswith(" ") for line in out.splitlines())
    data = redfs("--json", "status").json()
    assert data["logical_bytes"] == 4 << 30
    assert data["nodes"][0]["state"] == "down"
    assert data["jobs"][0]["done"] == 1234


def test_every_command_that_prints_speaks_json(redfs: CommandLine) -> None:
    for words in (
        ["version"],
        ["volume", "create", "photos"],
        ["volume", "ls"],
        ["volume", "info", "photos"],
        ["volume", "set", "photos", "--description", "x"],
        ["snapshot", "create", "photos@one"],
        ["snapshot", "ls"],
        ["snapshot", "ls", "photos"],
        ["clone", "photos", "other"],
        ["volume", "rename", "other", "another"],
        ["node", "ls"],
        ["status"],
        ["tree"],
        ["snapshot", "rm", "photos@one", "--yes"],
        ["volume", "rm", "another", "--yes"],
    ):
        after, before = redfs(*words, "--json"), None
        assert after.code == 0, after.err
        after.json()
        if words[1:2] not in (["create"], ["rename"], ["rm"]) and words[0] != "clone":
            before = redfs("--json", *words)
            assert before.json() == after.json()


def test_errors_are_one_line_with_their_exit_code(redfs: CommandLine) -> None:
    redfs("volume", "create", "photos")
    for words, code in (
        (["volume", "info", "nothing"], 3),
        (["volume", "create", "photos"], 4),
        (["volume", "create", "Bad Name"], 2),
        (["volume", "create", "x", "--color", "no-such-colour"], 2),
        (["volume", "create"], 2),
        (["volume", "create", "x", "--protct", "single"], 2),
        (["nonsense"], 2),
        (["node", "start", "many"], 2),
        (["snapshot", "ls", "nothing"], 3),
    ):
        failed = redfs(*words)
        assert failed.code == code, words
        assert failed.err.startswith("redfs: "), words
        assert failed.err.count("\n") == 1, words
        assert failed.out == "", words


def test_errors_speak_json_too(redfs: CommandLine) -> None:
    import json

    failed = redfs("volume", "info", "nothing", "--json")
    assert failed.out == ""
    assert json.loads(failed.err)["error"] == {
        "code": "not_found",
        "exit_code": 3,
        "message": "no volume 'nothing'",
    }


def test_a_coordinator_that_is_not_there_is_named(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    coordinator.stop()
    failed = redfs("status")
    assert failed.code == 7
    assert coordinator.address in failed.err
    assert "redfs up" in failed.err


def test_the_unexpected_is_one_line_and_the_rest_is_in_the_log(
    redfs: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redfs.client.api as api
    from redfs.client.config import log_path

    def broken(self: object) -> None:
        raise ZeroDivisionError("what is this")

    monkeypatch.setattr(api.Pool, "status", broken)
    failed = redfs("status")
    assert failed.code == 70
    assert failed.err.count("\n") == 1
    assert str(log_path()) in failed.err
    assert "Traceback" in log_path().read_text()
    with pytest.raises(ZeroDivisionError):
        redfs("status", "--debug")


def test_a_quota_is_given_in_units_and_taken_away_with_0(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    assert redfs("volume", "create", "photos", "--quota", "1.5G").code == 0
    assert coordinator.calls[-1] == pb.VolumeCreate(name="photos", quota_bytes=3 << 29)
    assert redfs("volume", "set", "photos", "--quota", "0").code == 0
    assert coordinator.calls[-1] == pb.VolumeSet(name="photos", quota_bytes=0)
    refused = redfs("volume", "set", "photos", "--quota", "much")
    assert (refused.code, refused.err) == (
        2, "redfs: 'much' is no size: write a number with K, M, G, T or P, like 500G\n",
    )  # fmt: skip


def test_what_deleting_would_free(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    redfs("volume", "create", "photos")
    out = redfs("volume", "freed", "photos").out
    assert [line.split("  ")[0] for line in out.splitlines()] == [
        "FREED", "in files", "after dedupe", "after compression", "on disks",
    ]  # fmt: skip
    assert redfs("--json", "volume", "freed", "photos").json()["stored_bytes"] == 1 << 20
    assert redfs("volume", "freed", "photos", "nothing").code == 3


def test_status_tells_what_is_wrong_on_a_node(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    assert "damaged" not in redfs("status").out
    coordinator.nodes[0].damaged_shards, coordinator.nodes[0].missing_shards = 2, 1
    coordinator.nodes[0].disk_failed = True
    assert "disk failed, 2 damaged, 1 missing" in redfs("status").out
    assert "disk failed, 2 damaged, 1 missing" in redfs("node", "ls").out
