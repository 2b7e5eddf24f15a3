"""Rows of the coordinator's tables: there and back, their very bytes, and versions that are not known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redfs.core import tables as t
from redfs.core.errors import WrongFormat
from redfs.core.policy import Layout, Policy

VOLUME = t.VolumeRow(
    7,
    t.VolumeKind.SNAPSHOT,
    t.VolumeState.OK,
    2,
    2,
    5,
    1_700_000_000,
    Policy(4, 2),
    1,
    0,
    "v@s",
    "d",
    "red",
    9,
    6,
    "o",
    True,
)
BLOCK = t.BlockRow(0x1122, 64, 100, 200, 1, 0xDEADBEEF, bytes(range(32)), 3)
SEGMENT = t.SegmentRow(
    t.SegmentState.OPEN, Layout(2, 1), t.Domain(4, 2), 128, 100, -1, 7, 9, (1, 2, 300), ((4, 0), (70000, 2))
)
SESSION = t.SessionRow(b"0123456789abcdef", 5, 17, "host:1:/mnt")
NODE = t.NodeRow("uuid", "10.0.0.1:7500", "rack", "/disk", 3, 4, True)
DAMAGE = t.DamageRow(3, 9, True, "gone")
JOB = t.JobRow(5, 7, 100, b"cursor", "photos", 11, True, 13, 17)
SCHEDULE = t.ScheduleRow(3, 3600, 24, 5, "full")
STATS = t.StatsRow(1, 2, 3, 4, 5, 6, 7)

GOLDEN = [
    (t.encode_volume, t.decode_volume, VOLUME,
     "01000000000000000703010000000000000002000000000000000200000000000000050000000065" "53f100"
     "04020100" "0000000000000009" "0000000000000006" "01" "0003764073" "000164" "0003726564" "00016f"),
    (t.encode_block, t.decode_block, BLOCK,
     "01" "0000000000001122" "00000040" "00000064" "000000c8" "01" "00000000deadbeef"
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" "0000000000000003"),
    (t.encode_segment, t.decode_segment, SEGMENT,
     "01" "01" "0201" "0402" "00000000" "00000080" "00000064" "ffffffffffffffff" "0000000000000007" "0000000000000009"
     "0302" "00000001" "00000002" "0000012c" "0000000400" "0001117002"),
    (t.encode_session, t.decode_session, SESSION,
     "01" "30313233343536373839616263646566" "0000000000000005" "0000000000000011" "000b" "686f73743a313a2f6d6e74"),
    (t.encode_node, t.decode_node, NODE,
     "01" "0000000000000003" "0000000000000004" "01" "0004" "75756964" "000d" "31302e302e302e313a37353030"
     "0004" "7261636b" "0005" "2f6469736b"),
    (t.encode_damage, t.decode_damage, DAMAGE, "01" "00000003" "0000000000000009" "01" "0004" "676f6e65"),
    (t.encode_job, t.decode_job, JOB,
     "01" "01" "0000000000000005" "0000000000000007" "0000000000000064" "000000000000000b" "000000000000000d"
     "0000000000000011" "0006" "637572736f72" "0006" "70686f746f73"),
    (t.encode_schedule, t.decode_schedule, SCHEDULE,
     "01" "0000000000000003" "0000000000000e10" "00000018" "0000000000000005" "0004" "66756c6c"),
    (t.encode_stats, t.decode_stats, STATS,
     "01" "0000000000000001" "0000000000000002" "0000000000000003" "0000000000000004" "0000000000000005"
     "0000000000000006" "0000000000000007"),
    (t.encode_scrub, t.decode_scrub, t.ScrubRow(1, 2, 3, 4, 5, True),
     "01" "0000000000000001" "0000000000000002" "0000000000000003" "0000000000000004" "0000000000000005" "01"),
    (t.encode_last_scrub, t.decode_last_scrub, t.LastScrubRow(1, 2, 3, 4),
     "01" "0000000000000001" "0000000000000002" "0000000000000003" "0000000000000004"),
    (t.encode_operation, t.decode_operation, t.OperationRow(1, 2, 3, True, b"ino", b"other"),
     "01" "0000000000000001" "0000000000000002" "0000000000000003" "01" "0003" "0005" "696e6f" "6f74686572"),
    (t.encode_reply, t.decode_reply, ((1, 2), (3, 4)),
     "01" "0000000000000001" "0000000000000002" "0000000000000003" "0000000000000004"),
]  # fmt: skip


@pytest.mark.parametrize(("encode", "decode", "row", "golden"), GOLDEN, ids=[type(g[2]).__name__ for g in GOLDEN])
def test_the_bytes_of_rows_never_change(encode: object, decode: object, row: object, golden: str) -> None:
    assert callable(encode)
    assert callable(decode)
    assert encode(row).hex() == golden
    assert decode(bytes.fromhex(golden)) == row
    with pytest.raises(WrongFormat, match="upgrade"):
        decode(b"\x02" + bytes.fromhex(golden)[1:])


def test_keys() -> None:
    assert t.doomed_key(1, 2, 3).hex() == "0000000100000000000000020003"
    assert t.split_doomed_key(t.doomed_key(1, 2, 3)) == (1, 2, 3)
    assert t.dedupe_key(t.Domain(4, 2), b"f" * 32).hex() == "040200000000" + "66" * 32
    assert t.split_dedupe_key(t.dedupe_key(t.Domain(4, 2, 9), b"f" * 32)) == (t.Domain(4, 2, 9), b"f" * 32)
    assert t.split_job_key(t.job_key(t.JobKind.REAP, 5, 6)) == (3, 5, 6)
    assert t.pack_shards([(1, 2)]).hex() == "00000000000000010002"
    assert t.pack_held_shards([(1, 2, 3)]).hex() == "0000000000000001000200000003"
    assert t.schedule_key(5, "hourly").hex() == "0000000000000005686f75726c79"
    assert t.split_schedule_key(t.schedule_key(5, "hourly")) == (5, "hourly")
    low, high = t.schedule_range(5)
    assert low <= t.schedule_key(5, "a") < t.schedule_key(5, "zz") < high <= t.schedule_key(6, "a")
    low, high = t.doomed_range(5)
    assert low <= t.doomed_key(5, 0, 0) < high
    assert t.doomed_key(5, 2**48 - 1, 65535) < high <= t.doomed_key(6, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 2**48), st.integers(0, 255), st.integers(0, 2**32 - 1))))
def test_shard_lists_come_back(shards: list[tuple[int, int, int]]) -> None:
    assert t.unpack_held_shards(t.pack_held_shards(shards)) == shards
    assert t.unpack_shards(t.pack_shards([s[:2] for s in shards])) == [s[:2] for s in shards]


def test_shard_lists_of_a_wrong_length_are_refused() -> None:
    with pytest.raises(WrongFormat):
        t.unpack_shards(b"123")
    with pytest.raises(WrongFormat):
        t.unpack_held_shards(b"1234567890")
