from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ProtocolVersion(_message.Message):
    __slots__ = ("version", "compatible_features", "read_only_features", "incompatible_features")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COMPATIBLE_FEATURES_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FEATURES_FIELD_NUMBER: _ClassVar[int]
    INCOMPATIBLE_FEATURES_FIELD_NUMBER: _ClassVar[int]
    version: int
    compatible_features: int
    read_only_features: int
    incompatible_features: int
    def __init__(self, version: _Optional[int] = ..., compatible_features: _Optional[int] = ..., read_only_features: _Optional[int] = ..., incompatible_features: _Optional[int] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message", "missing_blocks", "errno")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MISSING_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    ERRNO_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    missing_blocks: _containers.RepeatedScalarFieldContainer[int]
    errno: int
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., missing_blocks: _Optional[_Iterable[int]] = ..., errno: _Optional[int] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("node_id", "address", "state", "capacity_bytes", "used_bytes", "free_bytes", "shards", "backing_files", "domain", "last_seen_s", "data_folder", "generation", "damaged_shards", "missing_shards", "disk_failed", "segments", "allowed")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    BACKING_FILES_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_S_FIELD_NUMBER: _ClassVar[int]
    DATA_FOLDER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_SHARDS_FIELD_NUMBER: _ClassVar[int]
    MISSING_SHARDS_FIELD_NUMBER: _ClassVar[int]
    DISK_FAILED_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    address: str
    state: str
    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    shards: int
    backing_files: int
    domain: str
    last_seen_s: float
    data_folder: str
    generation: int
    damaged_shards: int
    missing_shards: int
    disk_failed: bool
    segments: int
    allowed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node_id: _Optional[int] = ..., address: _Optional[str] = ..., state: _Optional[str] = ..., capacity_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., shards: _Optional[int] = ..., backing_files: _Optional[int] = ..., domain: _Optional[str] = ..., last_seen_s: _Optional[float] = ..., data_folder: _Optional[str] = ..., generation: _Optional[int] = ..., damaged_shards: _Optional[int] = ..., missing_shards: _Optional[int] = ..., disk_failed: _Optional[bool] = ..., segments: _Optional[int] = ..., allowed: _Optional[_Iterable[str]] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("segment_id", "k", "m", "shard_bytes", "nodes")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    M_FIELD_NUMBER: _ClassVar[int]
    SHARD_BYTES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    k: int
    m: int
    shard_bytes: int
    nodes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, segment_id: _Optional[int] = ..., k: _Optional[int] = ..., m: _Optional[int] = ..., shard_bytes: _Optional[int] = ..., nodes: _Optional[_Iterable[int]] = ...) -> None: ...

class Block(_message.Message):
    __slots__ = ("block_id", "segment_id", "offset", "stored_bytes", "plain_bytes", "codec", "checksum", "fingerprint")
    BLOCK_ID_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PLAIN_BYTES_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    block_id: int
    segment_id: int
    offset: int
    stored_bytes: int
    plain_bytes: int
    codec: int
    checksum: int
    fingerprint: bytes
    def __init__(self, block_id: _Optional[int] = ..., segment_id: _Optional[int] = ..., offset: _Optional[int] = ..., stored_bytes: _Optional[int] = ..., plain_bytes: _Optional[int] = ..., codec: _Optional[int] = ..., checksum: _Optional[int] = ..., fingerprint: _Optional[bytes] = ...) -> None: ...

class Volume(_message.Message):
    __slots__ = ("volume_id", "kind", "name", "parent_id", "state", "created_ns", "protection", "description", "color", "compression", "minimum_nodes", "mounts", "quota_bytes", "usage", "schedule_id", "origin", "allowed", "shared", "in_shared_mode")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    PROTECTION_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_NODES_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_ID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    IN_SHARED_MODE_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    kind: str
    name: str
    parent_id: int
    state: str
    created_ns: int
    protection: str
    description: str
    color: str
    compression: str
    minimum_nodes: int
    mounts: _containers.RepeatedScalarFieldContainer[str]
    quota_bytes: int
    usage: Usage
    schedule_id: int
    origin: str
    allowed: _containers.RepeatedScalarFieldContainer[str]
    shared: bool
    in_shared_mode: bool
    def __init__(self, volume_id: _Optional[int] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., parent_id: _Optional[int] = ..., state: _Optional[str] = ..., created_ns: _Optional[int] = ..., protection: _Optional[str] = ..., description: _Optional[str] = ..., color: _Optional[str] = ..., compression: _Optional[str] = ..., minimum_nodes: _Optional[int] = ..., mounts: _Optional[_Iterable[str]] = ..., quota_bytes: _Optional[int] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., schedule_id: _Optional[int] = ..., origin: _Optional[str] = ..., allowed: _Optional[_Iterable[str]] = ..., shared: _Optional[bool] = ..., in_shared_mode: _Optional[bool] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("logical_bytes", "stored_bytes", "logical_alone_bytes", "stored_alone_bytes")
    LOGICAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOGICAL_ALONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORED_ALONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    logical_bytes: int
    stored_bytes: int
    logical_alone_bytes: int
    stored_alone_bytes: int
    def __init__(self, logical_bytes: _Optional[int] = ..., stored_bytes: _Optional[int] = ..., logical_alone_bytes: _Optional[int] = ..., stored_alone_bytes: _Optional[int] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("protocol", "client_name", "session_id", "token")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    protocol: ProtocolVersion
    client_name: str
    session_id: int
    token: bytes
    def __init__(self, protocol: _Optional[_Union[ProtocolVersion, _Mapping]] = ..., client_name: _Optional[str] = ..., session_id: _Optional[int] = ..., token: _Optional[bytes] = ...) -> None: ...

class OpenReply(_message.Message):
    __slots__ = ("protocol", "session_id", "token", "lease_s", "pool_id", "last_commit", "resumed")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_COMMIT_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    protocol: ProtocolVersion
    session_id: int
    token: bytes
    lease_s: float
    pool_id: str
    last_commit: int
    resumed: bool
    def __init__(self, protocol: _Optional[_Union[ProtocolVersion, _Mapping]] = ..., session_id: _Optional[int] = ..., token: _Optional[bytes] = ..., lease_s: _Optional[float] = ..., pool_id: _Optional[str] = ..., last_commit: _Optional[int] = ..., resumed: _Optional[bool] = ...) -> None: ...

class Renew(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Attach(_message.Message):
    __slots__ = ("name", "read_only", "view", "volume_id", "shared", "alone")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    name: str
    read_only: bool
    view: bool
    volume_id: int
    shared: bool
    alone: bool
    def __init__(self, name: _Optional[str] = ..., read_only: _Optional[bool] = ..., view: _Optional[bool] = ..., volume_id: _Optional[int] = ..., shared: _Optional[bool] = ..., alone: _Optional[bool] = ...) -> None: ...

class AttachReply(_message.Message):
    __slots__ = ("volume", "lineage", "epoch", "root", "exclusive", "writable_bytes", "shared", "read_only")
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    volume: Volume
    lineage: int
    epoch: int
    root: bytes
    exclusive: bool
    writable_bytes: int
    shared: bool
    read_only: bool
    def __init__(self, volume: _Optional[_Union[Volume, _Mapping]] = ..., lineage: _Optional[int] = ..., epoch: _Optional[int] = ..., root: _Optional[bytes] = ..., exclusive: _Optional[bool] = ..., writable_bytes: _Optional[int] = ..., shared: _Optional[bool] = ..., read_only: _Optional[bool] = ...) -> None: ...

class Detach(_message.Message):
    __slots__ = ("volume_id",)
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    def __init__(self, volume_id: _Optional[int] = ...) -> None: ...

class DetachReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Key(_message.Message):
    __slots__ = ("kind", "obj")
    KIND_FIELD_NUMBER: _ClassVar[int]
    OBJ_FIELD_NUMBER: _ClassVar[int]
    kind: int
    obj: bytes
    def __init__(self, kind: _Optional[int] = ..., obj: _Optional[bytes] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("kind", "obj", "value")
    KIND_FIELD_NUMBER: _ClassVar[int]
    OBJ_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    kind: int
    obj: bytes
    value: bytes
    def __init__(self, kind: _Optional[int] = ..., obj: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class GetRows(_message.Message):
    __slots__ = ("volume_id", "keys")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    keys: _containers.RepeatedCompositeFieldContainer[Key]
    def __init__(self, volume_id: _Optional[int] = ..., keys: _Optional[_Iterable[_Union[Key, _Mapping]]] = ...) -> None: ...

class GetRowsReply(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    def __init__(self, rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ...) -> None: ...

class ReadFolder(_message.Message):
    __slots__ = ("volume_id", "ino", "after", "limit")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    INO_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    ino: int
    after: bytes
    limit: int
    def __init__(self, volume_id: _Optional[int] = ..., ino: _Optional[int] = ..., after: _Optional[bytes] = ..., limit: _Optional[int] = ...) -> None: ...

class ReadFolderReply(_message.Message):
    __slots__ = ("rows", "last", "complete")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    last: bytes
    complete: bool
    def __init__(self, rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., last: _Optional[bytes] = ..., complete: _Optional[bool] = ...) -> None: ...

class ScanRows(_message.Message):
    __slots__ = ("volume_id", "kind", "start", "end", "limit", "since")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    kind: int
    start: bytes
    end: bytes
    limit: int
    since: int
    def __init__(self, volume_id: _Optional[int] = ..., kind: _Optional[int] = ..., start: _Optional[bytes] = ..., end: _Optional[bytes] = ..., limit: _Optional[int] = ..., since: _Optional[int] = ...) -> None: ...

class ScanRowsReply(_message.Message):
    __slots__ = ("rows", "complete", "next")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    complete: bool
    next: bytes
    def __init__(self, rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., complete: _Optional[bool] = ..., next: _Optional[bytes] = ...) -> None: ...

class ReadSlots(_message.Message):
    __slots__ = ("volume_id", "ino", "generation", "first", "count")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    INO_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    ino: int
    generation: int
    first: int
    count: int
    def __init__(self, volume_id: _Optional[int] = ..., ino: _Optional[int] = ..., generation: _Optional[int] = ..., first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class ReadSlotsReply(_message.Message):
    __slots__ = ("rows", "blocks", "segments")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    blocks: _containers.RepeatedCompositeFieldContainer[Block]
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    def __init__(self, rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., blocks: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ...) -> None: ...

class LocateBlocks(_message.Message):
    __slots__ = ("block_ids",)
    BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    block_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, block_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class LocateBlocksReply(_message.Message):
    __slots__ = ("blocks", "segments")
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    blocks: _containers.RepeatedCompositeFieldContainer[Block]
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    def __init__(self, blocks: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ...) -> None: ...

class SegmentBlocks(_message.Message):
    __slots__ = ("segment_id",)
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    def __init__(self, segment_id: _Optional[int] = ...) -> None: ...

class SegmentBlocksReply(_message.Message):
    __slots__ = ("blocks",)
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    blocks: _containers.RepeatedCompositeFieldContainer[Block]
    def __init__(self, blocks: _Optional[_Iterable[_Union[Block, _Mapping]]] = ...) -> None: ...

class FindBlocks(_message.Message):
    __slots__ = ("volume_id", "fingerprints")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINTS_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    fingerprints: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, volume_id: _Optional[int] = ..., fingerprints: _Optional[_Iterable[bytes]] = ...) -> None: ...

class FindBlocksReply(_message.Message):
    __slots__ = ("block_ids",)
    BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    block_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, block_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class OpenSegments(_message.Message):
    __slots__ = ("volume_id", "count", "small")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SMALL_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    count: int
    small: bool
    def __init__(self, volume_id: _Optional[int] = ..., count: _Optional[int] = ..., small: _Optional[bool] = ...) -> None: ...

class OpenSegmentsReply(_message.Message):
    __slots__ = ("segments",)
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    def __init__(self, segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ...) -> None: ...

class ReplaceShard(_message.Message):
    __slots__ = ("segment_id", "shard", "avoid")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    AVOID_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    shard: int
    avoid: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, segment_id: _Optional[int] = ..., shard: _Optional[int] = ..., avoid: _Optional[_Iterable[int]] = ...) -> None: ...

class ReplaceShardReply(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: int
    def __init__(self, node: _Optional[int] = ...) -> None: ...

class AbortSegments(_message.Message):
    __slots__ = ("segment_ids",)
    SEGMENT_IDS_FIELD_NUMBER: _ClassVar[int]
    segment_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, segment_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class AbortSegmentsReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Reserve(_message.Message):
    __slots__ = ("volume_id", "wanted_bytes")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    WANTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    wanted_bytes: int
    def __init__(self, volume_id: _Optional[int] = ..., wanted_bytes: _Optional[int] = ...) -> None: ...

class ReserveReply(_message.Message):
    __slots__ = ("granted_bytes", "has_quota", "quota_left_bytes", "freeing")
    GRANTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    HAS_QUOTA_FIELD_NUMBER: _ClassVar[int]
    QUOTA_LEFT_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREEING_FIELD_NUMBER: _ClassVar[int]
    granted_bytes: int
    has_quota: bool
    quota_left_bytes: int
    freeing: bool
    def __init__(self, granted_bytes: _Optional[int] = ..., has_quota: _Optional[bool] = ..., quota_left_bytes: _Optional[int] = ..., freeing: _Optional[bool] = ...) -> None: ...

class GrantInodes(_message.Message):
    __slots__ = ("volume_id", "count", "above")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ABOVE_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    count: int
    above: int
    def __init__(self, volume_id: _Optional[int] = ..., count: _Optional[int] = ..., above: _Optional[int] = ...) -> None: ...

class GrantInodesReply(_message.Message):
    __slots__ = ("first", "count")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("volume_id", "number", "segments", "blocks", "rows", "lineage")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    number: int
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    blocks: _containers.RepeatedCompositeFieldContainer[Block]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    lineage: int
    def __init__(self, volume_id: _Optional[int] = ..., number: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., blocks: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., lineage: _Optional[int] = ...) -> None: ...

class CommitReply(_message.Message):
    __slots__ = ("number", "substitutions")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SUBSTITUTIONS_FIELD_NUMBER: _ClassVar[int]
    number: int
    substitutions: _containers.RepeatedCompositeFieldContainer[Substitution]
    def __init__(self, number: _Optional[int] = ..., substitutions: _Optional[_Iterable[_Union[Substitution, _Mapping]]] = ...) -> None: ...

class Substitution(_message.Message):
    __slots__ = ("block", "stored")
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    block: int
    stored: int
    def __init__(self, block: _Optional[int] = ..., stored: _Optional[int] = ...) -> None: ...

class Look(_message.Message):
    __slots__ = ("volume_id", "lineage", "operation", "ino", "name", "after_cookie", "limit", "offset", "size")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    INO_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_COOKIE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    lineage: int
    operation: str
    ino: int
    name: bytes
    after_cookie: int
    limit: int
    offset: int
    size: int
    def __init__(self, volume_id: _Optional[int] = ..., lineage: _Optional[int] = ..., operation: _Optional[str] = ..., ino: _Optional[int] = ..., name: _Optional[bytes] = ..., after_cookie: _Optional[int] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class Listed(_message.Message):
    __slots__ = ("cookie", "name", "ino", "file_type", "inode")
    COOKIE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    INO_FIELD_NUMBER: _ClassVar[int]
    FILE_TYPE_FIELD_NUMBER: _ClassVar[int]
    INODE_FIELD_NUMBER: _ClassVar[int]
    cookie: int
    name: bytes
    ino: int
    file_type: int
    inode: bytes
    def __init__(self, cookie: _Optional[int] = ..., name: _Optional[bytes] = ..., ino: _Optional[int] = ..., file_type: _Optional[int] = ..., inode: _Optional[bytes] = ...) -> None: ...

class LookReply(_message.Message):
    __slots__ = ("ino", "inode", "value", "names", "entries", "slots", "blocks", "segments", "remember")
    INO_FIELD_NUMBER: _ClassVar[int]
    INODE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    REMEMBER_FIELD_NUMBER: _ClassVar[int]
    ino: int
    inode: bytes
    value: bytes
    names: _containers.RepeatedScalarFieldContainer[bytes]
    entries: _containers.RepeatedCompositeFieldContainer[Listed]
    slots: _containers.RepeatedCompositeFieldContainer[Row]
    blocks: _containers.RepeatedCompositeFieldContainer[Block]
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    remember: bool
    def __init__(self, ino: _Optional[int] = ..., inode: _Optional[bytes] = ..., value: _Optional[bytes] = ..., names: _Optional[_Iterable[bytes]] = ..., entries: _Optional[_Iterable[_Union[Listed, _Mapping]]] = ..., slots: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., blocks: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., remember: _Optional[bool] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("volume_id", "lineage", "number", "answered", "operation", "uid", "gid", "groups", "ino", "name", "new_parent", "new_name", "mode", "rdev", "flags", "value", "attributes", "inode", "rows", "size", "hold", "let_go", "forgot")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    INO_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_PARENT_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    RDEV_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    INODE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    LET_GO_FIELD_NUMBER: _ClassVar[int]
    FORGOT_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    lineage: int
    number: int
    answered: int
    operation: str
    uid: int
    gid: int
    groups: _containers.RepeatedScalarFieldContainer[int]
    ino: int
    name: bytes
    new_parent: int
    new_name: bytes
    mode: int
    rdev: int
    flags: int
    value: bytes
    attributes: SetAttributes
    inode: bytes
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    size: int
    hold: bool
    let_go: bool
    forgot: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, volume_id: _Optional[int] = ..., lineage: _Optional[int] = ..., number: _Optional[int] = ..., answered: _Optional[int] = ..., operation: _Optional[str] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., groups: _Optional[_Iterable[int]] = ..., ino: _Optional[int] = ..., name: _Optional[bytes] = ..., new_parent: _Optional[int] = ..., new_name: _Optional[bytes] = ..., mode: _Optional[int] = ..., rdev: _Optional[int] = ..., flags: _Optional[int] = ..., value: _Optional[bytes] = ..., attributes: _Optional[_Union[SetAttributes, _Mapping]] = ..., inode: _Optional[bytes] = ..., rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., size: _Optional[int] = ..., hold: _Optional[bool] = ..., let_go: _Optional[bool] = ..., forgot: _Optional[_Iterable[int]] = ...) -> None: ...

class SetAttributes(_message.Message):
    __slots__ = ("mode", "uid", "gid", "size", "atime_ns", "mtime_ns", "ctime_ns")
    MODE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ATIME_NS_FIELD_NUMBER: _ClassVar[int]
    MTIME_NS_FIELD_NUMBER: _ClassVar[int]
    CTIME_NS_FIELD_NUMBER: _ClassVar[int]
    mode: int
    uid: int
    gid: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    def __init__(self, mode: _Optional[int] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., size: _Optional[int] = ..., atime_ns: _Optional[int] = ..., mtime_ns: _Optional[int] = ..., ctime_ns: _Optional[int] = ...) -> None: ...

class ChangeReply(_message.Message):
    __slots__ = ("number", "ino", "inode", "replaced", "replaced_inode", "existed", "held")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    INO_FIELD_NUMBER: _ClassVar[int]
    INODE_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    REPLACED_INODE_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    number: int
    ino: int
    inode: bytes
    replaced: int
    replaced_inode: bytes
    existed: bool
    held: bool
    def __init__(self, number: _Optional[int] = ..., ino: _Optional[int] = ..., inode: _Optional[bytes] = ..., replaced: _Optional[int] = ..., replaced_inode: _Optional[bytes] = ..., existed: _Optional[bool] = ..., held: _Optional[bool] = ...) -> None: ...

class StoredPart(_message.Message):
    __slots__ = ("block_id", "bytes", "block_offset")
    BLOCK_ID_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_OFFSET_FIELD_NUMBER: _ClassVar[int]
    block_id: int
    bytes: int
    block_offset: int
    def __init__(self, block_id: _Optional[int] = ..., bytes: _Optional[int] = ..., block_offset: _Optional[int] = ...) -> None: ...

class WriteThrough(_message.Message):
    __slots__ = ("volume_id", "lineage", "number", "answered", "ino", "offset", "append", "segments", "blocks", "parts", "expected")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    INO_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    lineage: int
    number: int
    answered: int
    ino: int
    offset: int
    append: bool
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    blocks: _containers.RepeatedCompositeFieldContainer[Block]
    parts: _containers.RepeatedCompositeFieldContainer[StoredPart]
    expected: _containers.RepeatedCompositeFieldContainer[Row]
    def __init__(self, volume_id: _Optional[int] = ..., lineage: _Optional[int] = ..., number: _Optional[int] = ..., answered: _Optional[int] = ..., ino: _Optional[int] = ..., offset: _Optional[int] = ..., append: _Optional[bool] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., blocks: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., parts: _Optional[_Iterable[_Union[StoredPart, _Mapping]]] = ..., expected: _Optional[_Iterable[_Union[Row, _Mapping]]] = ...) -> None: ...

class WriteThroughReply(_message.Message):
    __slots__ = ("number", "offset", "inode", "full")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    INODE_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    number: int
    offset: int
    inode: bytes
    full: _containers.RepeatedCompositeFieldContainer[Row]
    def __init__(self, number: _Optional[int] = ..., offset: _Optional[int] = ..., inode: _Optional[bytes] = ..., full: _Optional[_Iterable[_Union[Row, _Mapping]]] = ...) -> None: ...

class WriteHeld(_message.Message):
    __slots__ = ("volume_id", "lineage", "number", "answered", "segments", "blocks", "files")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    lineage: int
    number: int
    answered: int
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    blocks: _containers.RepeatedCompositeFieldContainer[Block]
    files: _containers.RepeatedCompositeFieldContainer[HeldFile]
    def __init__(self, volume_id: _Optional[int] = ..., lineage: _Optional[int] = ..., number: _Optional[int] = ..., answered: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., blocks: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., files: _Optional[_Iterable[_Union[HeldFile, _Mapping]]] = ...) -> None: ...

class HeldFile(_message.Message):
    __slots__ = ("ino", "size", "mtime_ns", "parts")
    INO_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MTIME_NS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    ino: int
    size: int
    mtime_ns: int
    parts: _containers.RepeatedCompositeFieldContainer[StoredPart]
    def __init__(self, ino: _Optional[int] = ..., size: _Optional[int] = ..., mtime_ns: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[StoredPart, _Mapping]]] = ...) -> None: ...

class WriteHeldReply(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class GiveBack(_message.Message):
    __slots__ = ("volume_id", "open_inodes")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    OPEN_INODES_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    open_inodes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, volume_id: _Optional[int] = ..., open_inodes: _Optional[_Iterable[int]] = ...) -> None: ...

class GiveBackReply(_message.Message):
    __slots__ = ("attached",)
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    attached: AttachReply
    def __init__(self, attached: _Optional[_Union[AttachReply, _Mapping]] = ...) -> None: ...

class BecomeExclusive(_message.Message):
    __slots__ = ("volume_id",)
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    def __init__(self, volume_id: _Optional[int] = ...) -> None: ...

class BecomeExclusiveReply(_message.Message):
    __slots__ = ("attached",)
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    attached: AttachReply
    def __init__(self, attached: _Optional[_Union[AttachReply, _Mapping]] = ...) -> None: ...

class DeclareOpen(_message.Message):
    __slots__ = ("volume_id", "open_inodes", "held_inodes")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    OPEN_INODES_FIELD_NUMBER: _ClassVar[int]
    HELD_INODES_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    open_inodes: _containers.RepeatedScalarFieldContainer[int]
    held_inodes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, volume_id: _Optional[int] = ..., open_inodes: _Optional[_Iterable[int]] = ..., held_inodes: _Optional[_Iterable[int]] = ...) -> None: ...

class DeclareOpenReply(_message.Message):
    __slots__ = ("gone",)
    GONE_FIELD_NUMBER: _ClassVar[int]
    gone: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, gone: _Optional[_Iterable[int]] = ...) -> None: ...

class ListNodes(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListNodesReply(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ...) -> None: ...

class StatVolume(_message.Message):
    __slots__ = ("volume_id",)
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    def __init__(self, volume_id: _Optional[int] = ...) -> None: ...

class StatVolumeReply(_message.Message):
    __slots__ = ("total_bytes", "free_bytes")
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    total_bytes: int
    free_bytes: int
    def __init__(self, total_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ...) -> None: ...

class ReportDamage(_message.Message):
    __slots__ = ("segment_id", "shard", "reason")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    shard: int
    reason: str
    def __init__(self, segment_id: _Optional[int] = ..., shard: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ReportDamageReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSnapshots(_message.Message):
    __slots__ = ("volume_id",)
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    def __init__(self, volume_id: _Optional[int] = ...) -> None: ...

class ListSnapshotsReply(_message.Message):
    __slots__ = ("snapshots",)
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    snapshots: _containers.RepeatedCompositeFieldContainer[Volume]
    def __init__(self, snapshots: _Optional[_Iterable[_Union[Volume, _Mapping]]] = ...) -> None: ...

class Figures(_message.Message):
    __slots__ = ("read_bytes", "written_bytes", "operations", "busy_us")
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    BUSY_US_FIELD_NUMBER: _ClassVar[int]
    read_bytes: int
    written_bytes: int
    operations: int
    busy_us: int
    def __init__(self, read_bytes: _Optional[int] = ..., written_bytes: _Optional[int] = ..., operations: _Optional[int] = ..., busy_us: _Optional[int] = ...) -> None: ...

class ReportFigures(_message.Message):
    __slots__ = ("figures",)
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    figures: Figures
    def __init__(self, figures: _Optional[_Union[Figures, _Mapping]] = ...) -> None: ...

class ReportFiguresReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("request_id", "open", "renew", "attach", "detach", "get_rows", "read_folder", "scan_rows", "read_slots", "locate_blocks", "segment_blocks", "find_blocks", "open_segments", "replace_shard", "abort_segments", "reserve", "grant_inodes", "commit", "list_nodes", "stat_volume", "report_damage", "flush_done", "close", "list_snapshots", "report_figures", "copy_done", "rebase_done", "look", "change", "write_through", "give_back", "become_exclusive", "declare_open", "recall_done", "forget_done", "write_held", "return_held_done", "drop_remembered_done")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    GET_ROWS_FIELD_NUMBER: _ClassVar[int]
    READ_FOLDER_FIELD_NUMBER: _ClassVar[int]
    SCAN_ROWS_FIELD_NUMBER: _ClassVar[int]
    READ_SLOTS_FIELD_NUMBER: _ClassVar[int]
    LOCATE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    FIND_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    OPEN_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_SHARD_FIELD_NUMBER: _ClassVar[int]
    ABORT_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    GRANT_INODES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    LIST_NODES_FIELD_NUMBER: _ClassVar[int]
    STAT_VOLUME_FIELD_NUMBER: _ClassVar[int]
    REPORT_DAMAGE_FIELD_NUMBER: _ClassVar[int]
    FLUSH_DONE_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    LIST_SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIGURES_FIELD_NUMBER: _ClassVar[int]
    COPY_DONE_FIELD_NUMBER: _ClassVar[int]
    REBASE_DONE_FIELD_NUMBER: _ClassVar[int]
    LOOK_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WRITE_THROUGH_FIELD_NUMBER: _ClassVar[int]
    GIVE_BACK_FIELD_NUMBER: _ClassVar[int]
    BECOME_EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    DECLARE_OPEN_FIELD_NUMBER: _ClassVar[int]
    RECALL_DONE_FIELD_NUMBER: _ClassVar[int]
    FORGET_DONE_FIELD_NUMBER: _ClassVar[int]
    WRITE_HELD_FIELD_NUMBER: _ClassVar[int]
    RETURN_HELD_DONE_FIELD_NUMBER: _ClassVar[int]
    DROP_REMEMBERED_DONE_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    open: Open
    renew: Renew
    attach: Attach
    detach: Detach
    get_rows: GetRows
    read_folder: ReadFolder
    scan_rows: ScanRows
    read_slots: ReadSlots
    locate_blocks: LocateBlocks
    segment_blocks: SegmentBlocks
    find_blocks: FindBlocks
    open_segments: OpenSegments
    replace_shard: ReplaceShard
    abort_segments: AbortSegments
    reserve: Reserve
    grant_inodes: GrantInodes
    commit: Commit
    list_nodes: ListNodes
    stat_volume: StatVolume
    report_damage: ReportDamage
    flush_done: FlushDone
    close: Close
    list_snapshots: ListSnapshots
    report_figures: ReportFigures
    copy_done: CopyDone
    rebase_done: RebaseDone
    look: Look
    change: Change
    write_through: WriteThrough
    give_back: GiveBack
    become_exclusive: BecomeExclusive
    declare_open: DeclareOpen
    recall_done: RecallDone
    forget_done: ForgetDone
    write_held: WriteHeld
    return_held_done: ReturnHeldDone
    drop_remembered_done: DropRememberedDone
    def __init__(self, request_id: _Optional[int] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., renew: _Optional[_Union[Renew, _Mapping]] = ..., attach: _Optional[_Union[Attach, _Mapping]] = ..., detach: _Optional[_Union[Detach, _Mapping]] = ..., get_rows: _Optional[_Union[GetRows, _Mapping]] = ..., read_folder: _Optional[_Union[ReadFolder, _Mapping]] = ..., scan_rows: _Optional[_Union[ScanRows, _Mapping]] = ..., read_slots: _Optional[_Union[ReadSlots, _Mapping]] = ..., locate_blocks: _Optional[_Union[LocateBlocks, _Mapping]] = ..., segment_blocks: _Optional[_Union[SegmentBlocks, _Mapping]] = ..., find_blocks: _Optional[_Union[FindBlocks, _Mapping]] = ..., open_segments: _Optional[_Union[OpenSegments, _Mapping]] = ..., replace_shard: _Optional[_Union[ReplaceShard, _Mapping]] = ..., abort_segments: _Optional[_Union[AbortSegments, _Mapping]] = ..., reserve: _Optional[_Union[Reserve, _Mapping]] = ..., grant_inodes: _Optional[_Union[GrantInodes, _Mapping]] = ..., commit: _Optional[_Union[Commit, _Mapping]] = ..., list_nodes: _Optional[_Union[ListNodes, _Mapping]] = ..., stat_volume: _Optional[_Union[StatVolume, _Mapping]] = ..., report_damage: _Optional[_Union[ReportDamage, _Mapping]] = ..., flush_done: _Optional[_Union[FlushDone, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ..., list_snapshots: _Optional[_Union[ListSnapshots, _Mapping]] = ..., report_figures: _Optional[_Union[ReportFigures, _Mapping]] = ..., copy_done: _Optional[_Union[CopyDone, _Mapping]] = ..., rebase_done: _Optional[_Union[RebaseDone, _Mapping]] = ..., look: _Optional[_Union[Look, _Mapping]] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., write_through: _Optional[_Union[WriteThrough, _Mapping]] = ..., give_back: _Optional[_Union[GiveBack, _Mapping]] = ..., become_exclusive: _Optional[_Union[BecomeExclusive, _Mapping]] = ..., declare_open: _Optional[_Union[DeclareOpen, _Mapping]] = ..., recall_done: _Optional[_Union[RecallDone, _Mapping]] = ..., forget_done: _Optional[_Union[ForgetDone, _Mapping]] = ..., write_held: _Optional[_Union[WriteHeld, _Mapping]] = ..., return_held_done: _Optional[_Union[ReturnHeldDone, _Mapping]] = ..., drop_remembered_done: _Optional[_Union[DropRememberedDone, _Mapping]] = ...) -> None: ...

class Flush(_message.Message):
    __slots__ = ("flush_id", "volume_id", "hold", "hold_s")
    FLUSH_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    HOLD_S_FIELD_NUMBER: _ClassVar[int]
    flush_id: int
    volume_id: int
    hold: bool
    hold_s: float
    def __init__(self, flush_id: _Optional[int] = ..., volume_id: _Optional[int] = ..., hold: _Optional[bool] = ..., hold_s: _Optional[float] = ...) -> None: ...

class Gone(_message.Message):
    __slots__ = ("volume_id",)
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    def __init__(self, volume_id: _Optional[int] = ...) -> None: ...

class FlushDone(_message.Message):
    __slots__ = ("flush_id",)
    FLUSH_ID_FIELD_NUMBER: _ClassVar[int]
    flush_id: int
    def __init__(self, flush_id: _Optional[int] = ...) -> None: ...

class FlushDoneReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Rebase(_message.Message):
    __slots__ = ("rebase_id", "volume_id", "lineage", "root")
    REBASE_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    rebase_id: int
    volume_id: int
    lineage: int
    root: bytes
    def __init__(self, rebase_id: _Optional[int] = ..., volume_id: _Optional[int] = ..., lineage: _Optional[int] = ..., root: _Optional[bytes] = ...) -> None: ...

class RebaseDone(_message.Message):
    __slots__ = ("rebase_id",)
    REBASE_ID_FIELD_NUMBER: _ClassVar[int]
    rebase_id: int
    def __init__(self, rebase_id: _Optional[int] = ...) -> None: ...

class RebaseDoneReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Copy(_message.Message):
    __slots__ = ("copy_id", "volume_id", "request")
    COPY_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    copy_id: int
    volume_id: int
    request: CopyFiles
    def __init__(self, copy_id: _Optional[int] = ..., volume_id: _Optional[int] = ..., request: _Optional[_Union[CopyFiles, _Mapping]] = ...) -> None: ...

class CopyDone(_message.Message):
    __slots__ = ("copy_id", "reply", "failure")
    COPY_ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    copy_id: int
    reply: CopyFilesReply
    failure: Failure
    def __init__(self, copy_id: _Optional[int] = ..., reply: _Optional[_Union[CopyFilesReply, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class CopyDoneReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Recall(_message.Message):
    __slots__ = ("recall_id", "volume_id")
    RECALL_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    recall_id: int
    volume_id: int
    def __init__(self, recall_id: _Optional[int] = ..., volume_id: _Optional[int] = ...) -> None: ...

class RecallDone(_message.Message):
    __slots__ = ("recall_id",)
    RECALL_ID_FIELD_NUMBER: _ClassVar[int]
    recall_id: int
    def __init__(self, recall_id: _Optional[int] = ...) -> None: ...

class RecallDoneReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Alone(_message.Message):
    __slots__ = ("volume_id",)
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    def __init__(self, volume_id: _Optional[int] = ...) -> None: ...

class Forget(_message.Message):
    __slots__ = ("forget_id", "volume_id", "inodes")
    FORGET_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    INODES_FIELD_NUMBER: _ClassVar[int]
    forget_id: int
    volume_id: int
    inodes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, forget_id: _Optional[int] = ..., volume_id: _Optional[int] = ..., inodes: _Optional[_Iterable[int]] = ...) -> None: ...

class ForgetDone(_message.Message):
    __slots__ = ("forget_id",)
    FORGET_ID_FIELD_NUMBER: _ClassVar[int]
    forget_id: int
    def __init__(self, forget_id: _Optional[int] = ...) -> None: ...

class ForgetDoneReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Moved(_message.Message):
    __slots__ = ("volume_id", "ino", "parent", "name")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    INO_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    ino: int
    parent: int
    name: bytes
    def __init__(self, volume_id: _Optional[int] = ..., ino: _Optional[int] = ..., parent: _Optional[int] = ..., name: _Optional[bytes] = ...) -> None: ...

class DropRemembered(_message.Message):
    __slots__ = ("drop_id", "volume_id", "inodes")
    DROP_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    INODES_FIELD_NUMBER: _ClassVar[int]
    drop_id: int
    volume_id: int
    inodes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, drop_id: _Optional[int] = ..., volume_id: _Optional[int] = ..., inodes: _Optional[_Iterable[int]] = ...) -> None: ...

class DropRememberedDone(_message.Message):
    __slots__ = ("drop_id",)
    DROP_ID_FIELD_NUMBER: _ClassVar[int]
    drop_id: int
    def __init__(self, drop_id: _Optional[int] = ...) -> None: ...

class DropRememberedDoneReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReturnHeld(_message.Message):
    __slots__ = ("return_id", "volume_id", "inodes")
    RETURN_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    INODES_FIELD_NUMBER: _ClassVar[int]
    return_id: int
    volume_id: int
    inodes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, return_id: _Optional[int] = ..., volume_id: _Optional[int] = ..., inodes: _Optional[_Iterable[int]] = ...) -> None: ...

class ReturnHeldDone(_message.Message):
    __slots__ = ("return_id",)
    RETURN_ID_FIELD_NUMBER: _ClassVar[int]
    return_id: int
    def __init__(self, return_id: _Optional[int] = ...) -> None: ...

class ReturnHeldDoneReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Close(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CloseReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SessionReply(_message.Message):
    __slots__ = ("request_id", "failure", "flush", "gone", "copy", "rebase", "recall", "alone", "forget", "open", "renew", "attach", "detach", "get_rows", "read_folder", "scan_rows", "read_slots", "locate_blocks", "segment_blocks", "find_blocks", "open_segments", "replace_shard", "abort_segments", "reserve", "grant_inodes", "commit", "list_nodes", "stat_volume", "report_damage", "flush_done", "close", "list_snapshots", "report_figures", "copy_done", "rebase_done", "look", "change", "write_through", "give_back", "become_exclusive", "declare_open", "recall_done", "forget_done", "write_held", "return_held_done", "return_held", "moved", "drop_remembered", "drop_remembered_done")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    FLUSH_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    COPY_FIELD_NUMBER: _ClassVar[int]
    REBASE_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    GET_ROWS_FIELD_NUMBER: _ClassVar[int]
    READ_FOLDER_FIELD_NUMBER: _ClassVar[int]
    SCAN_ROWS_FIELD_NUMBER: _ClassVar[int]
    READ_SLOTS_FIELD_NUMBER: _ClassVar[int]
    LOCATE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    FIND_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    OPEN_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_SHARD_FIELD_NUMBER: _ClassVar[int]
    ABORT_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    GRANT_INODES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    LIST_NODES_FIELD_NUMBER: _ClassVar[int]
    STAT_VOLUME_FIELD_NUMBER: _ClassVar[int]
    REPORT_DAMAGE_FIELD_NUMBER: _ClassVar[int]
    FLUSH_DONE_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    LIST_SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIGURES_FIELD_NUMBER: _ClassVar[int]
    COPY_DONE_FIELD_NUMBER: _ClassVar[int]
    REBASE_DONE_FIELD_NUMBER: _ClassVar[int]
    LOOK_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WRITE_THROUGH_FIELD_NUMBER: _ClassVar[int]
    GIVE_BACK_FIELD_NUMBER: _ClassVar[int]
    BECOME_EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    DECLARE_OPEN_FIELD_NUMBER: _ClassVar[int]
    RECALL_DONE_FIELD_NUMBER: _ClassVar[int]
    FORGET_DONE_FIELD_NUMBER: _ClassVar[int]
    WRITE_HELD_FIELD_NUMBER: _ClassVar[int]
    RETURN_HELD_DONE_FIELD_NUMBER: _ClassVar[int]
    RETURN_HELD_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    DROP_REMEMBERED_FIELD_NUMBER: _ClassVar[int]
    DROP_REMEMBERED_DONE_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    failure: Failure
    flush: Flush
    gone: Gone
    copy: Copy
    rebase: Rebase
    recall: Recall
    alone: Alone
    forget: Forget
    open: OpenReply
    renew: RenewReply
    attach: AttachReply
    detach: DetachReply
    get_rows: GetRowsReply
    read_folder: ReadFolderReply
    scan_rows: ScanRowsReply
    read_slots: ReadSlotsReply
    locate_blocks: LocateBlocksReply
    segment_blocks: SegmentBlocksReply
    find_blocks: FindBlocksReply
    open_segments: OpenSegmentsReply
    replace_shard: ReplaceShardReply
    abort_segments: AbortSegmentsReply
    reserve: ReserveReply
    grant_inodes: GrantInodesReply
    commit: CommitReply
    list_nodes: ListNodesReply
    stat_volume: StatVolumeReply
    report_damage: ReportDamageReply
    flush_done: FlushDoneReply
    close: CloseReply
    list_snapshots: ListSnapshotsReply
    report_figures: ReportFiguresReply
    copy_done: CopyDoneReply
    rebase_done: RebaseDoneReply
    look: LookReply
    change: ChangeReply
    write_through: WriteThroughReply
    give_back: GiveBackReply
    become_exclusive: BecomeExclusiveReply
    declare_open: DeclareOpenReply
    recall_done: RecallDoneReply
    forget_done: ForgetDoneReply
    write_held: WriteHeldReply
    return_held_done: ReturnHeldDoneReply
    return_held: ReturnHeld
    moved: Moved
    drop_remembered: DropRemembered
    drop_remembered_done: DropRememberedDoneReply
    def __init__(self, request_id: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., flush: _Optional[_Union[Flush, _Mapping]] = ..., gone: _Optional[_Union[Gone, _Mapping]] = ..., copy: _Optional[_Union[Copy, _Mapping]] = ..., rebase: _Optional[_Union[Rebase, _Mapping]] = ..., recall: _Optional[_Union[Recall, _Mapping]] = ..., alone: _Optional[_Union[Alone, _Mapping]] = ..., forget: _Optional[_Union[Forget, _Mapping]] = ..., open: _Optional[_Union[OpenReply, _Mapping]] = ..., renew: _Optional[_Union[RenewReply, _Mapping]] = ..., attach: _Optional[_Union[AttachReply, _Mapping]] = ..., detach: _Optional[_Union[DetachReply, _Mapping]] = ..., get_rows: _Optional[_Union[GetRowsReply, _Mapping]] = ..., read_folder: _Optional[_Union[ReadFolderReply, _Mapping]] = ..., scan_rows: _Optional[_Union[ScanRowsReply, _Mapping]] = ..., read_slots: _Optional[_Union[ReadSlotsReply, _Mapping]] = ..., locate_blocks: _Optional[_Union[LocateBlocksReply, _Mapping]] = ..., segment_blocks: _Optional[_Union[SegmentBlocksReply, _Mapping]] = ..., find_blocks: _Optional[_Union[FindBlocksReply, _Mapping]] = ..., open_segments: _Optional[_Union[OpenSegmentsReply, _Mapping]] = ..., replace_shard: _Optional[_Union[ReplaceShardReply, _Mapping]] = ..., abort_segments: _Optional[_Union[AbortSegmentsReply, _Mapping]] = ..., reserve: _Optional[_Union[ReserveReply, _Mapping]] = ..., grant_inodes: _Optional[_Union[GrantInodesReply, _Mapping]] = ..., commit: _Optional[_Union[CommitReply, _Mapping]] = ..., list_nodes: _Optional[_Union[ListNodesReply, _Mapping]] = ..., stat_volume: _Optional[_Union[StatVolumeReply, _Mapping]] = ..., report_damage: _Optional[_Union[ReportDamageReply, _Mapping]] = ..., flush_done: _Optional[_Union[FlushDoneReply, _Mapping]] = ..., close: _Optional[_Union[CloseReply, _Mapping]] = ..., list_snapshots: _Optional[_Union[ListSnapshotsReply, _Mapping]] = ..., report_figures: _Optional[_Union[ReportFiguresReply, _Mapping]] = ..., copy_done: _Optional[_Union[CopyDoneReply, _Mapping]] = ..., rebase_done: _Optional[_Union[RebaseDoneReply, _Mapping]] = ..., look: _Optional[_Union[LookReply, _Mapping]] = ..., change: _Optional[_Union[ChangeReply, _Mapping]] = ..., write_through: _Optional[_Union[WriteThroughReply, _Mapping]] = ..., give_back: _Optional[_Union[GiveBackReply, _Mapping]] = ..., become_exclusive: _Optional[_Union[BecomeExclusiveReply, _Mapping]] = ..., declare_open: _Optional[_Union[DeclareOpenReply, _Mapping]] = ..., recall_done: _Optional[_Union[RecallDoneReply, _Mapping]] = ..., forget_done: _Optional[_Union[ForgetDoneReply, _Mapping]] = ..., write_held: _Optional[_Union[WriteHeldReply, _Mapping]] = ..., return_held_done: _Optional[_Union[ReturnHeldDoneReply, _Mapping]] = ..., return_held: _Optional[_Union[ReturnHeld, _Mapping]] = ..., moved: _Optional[_Union[Moved, _Mapping]] = ..., drop_remembered: _Optional[_Union[DropRemembered, _Mapping]] = ..., drop_remembered_done: _Optional[_Union[DropRememberedDoneReply, _Mapping]] = ...) -> None: ...

class VolumeCreate(_message.Message):
    __slots__ = ("name", "protection", "description", "color", "compression", "minimum_nodes", "quota_bytes", "hash_seed", "shared")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROTECTION_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_NODES_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    HASH_SEED_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    name: str
    protection: str
    description: str
    color: str
    compression: str
    minimum_nodes: int
    quota_bytes: int
    hash_seed: int
    shared: bool
    def __init__(self, name: _Optional[str] = ..., protection: _Optional[str] = ..., description: _Optional[str] = ..., color: _Optional[str] = ..., compression: _Optional[str] = ..., minimum_nodes: _Optional[int] = ..., quota_bytes: _Optional[int] = ..., hash_seed: _Optional[int] = ..., shared: _Optional[bool] = ...) -> None: ...

class VolumeClone(_message.Message):
    __slots__ = ("source", "name", "backed", "snapshot", "settings")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BACKED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    source: str
    name: str
    backed: bool
    snapshot: str
    settings: VolumeSet
    def __init__(self, source: _Optional[str] = ..., name: _Optional[str] = ..., backed: _Optional[bool] = ..., snapshot: _Optional[str] = ..., settings: _Optional[_Union[VolumeSet, _Mapping]] = ...) -> None: ...

class SnapshotCreate(_message.Message):
    __slots__ = ("name", "flush_deadline_s", "origin")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FLUSH_DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    name: str
    flush_deadline_s: float
    origin: str
    def __init__(self, name: _Optional[str] = ..., flush_deadline_s: _Optional[float] = ..., origin: _Optional[str] = ...) -> None: ...

class SnapshotCreateReply(_message.Message):
    __slots__ = ("snapshot", "holder_flushed", "coordinator_ms")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FLUSHED_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_MS_FIELD_NUMBER: _ClassVar[int]
    snapshot: Volume
    holder_flushed: bool
    coordinator_ms: float
    def __init__(self, snapshot: _Optional[_Union[Volume, _Mapping]] = ..., holder_flushed: _Optional[bool] = ..., coordinator_ms: _Optional[float] = ...) -> None: ...

class VolumeRollback(_message.Message):
    __slots__ = ("snapshot", "keep", "discard")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    snapshot: str
    keep: str
    discard: bool
    def __init__(self, snapshot: _Optional[str] = ..., keep: _Optional[str] = ..., discard: _Optional[bool] = ...) -> None: ...

class VolumeRollbackReply(_message.Message):
    __slots__ = ("volume", "kept", "coordinator_ms")
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_MS_FIELD_NUMBER: _ClassVar[int]
    volume: Volume
    kept: Volume
    coordinator_ms: float
    def __init__(self, volume: _Optional[_Union[Volume, _Mapping]] = ..., kept: _Optional[_Union[Volume, _Mapping]] = ..., coordinator_ms: _Optional[float] = ...) -> None: ...

class VolumeName(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class VolumeRename(_message.Message):
    __slots__ = ("name", "new_name")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    new_name: str
    def __init__(self, name: _Optional[str] = ..., new_name: _Optional[str] = ...) -> None: ...

class VolumeDelete(_message.Message):
    __slots__ = ("name", "force")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    force: bool
    def __init__(self, name: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class VolumeSet(_message.Message):
    __slots__ = ("name", "protection", "description", "color", "compression", "minimum_nodes", "quota_bytes", "shared")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROTECTION_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_NODES_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    name: str
    protection: str
    description: str
    color: str
    compression: str
    minimum_nodes: int
    quota_bytes: int
    shared: bool
    def __init__(self, name: _Optional[str] = ..., protection: _Optional[str] = ..., description: _Optional[str] = ..., color: _Optional[str] = ..., compression: _Optional[str] = ..., minimum_nodes: _Optional[int] = ..., quota_bytes: _Optional[int] = ..., shared: _Optional[bool] = ...) -> None: ...

class VolumeList(_message.Message):
    __slots__ = ("volumes",)
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    volumes: _containers.RepeatedCompositeFieldContainer[Volume]
    def __init__(self, volumes: _Optional[_Iterable[_Union[Volume, _Mapping]]] = ...) -> None: ...

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PoolStatus(_message.Message):
    __slots__ = ("pool_id", "health", "problems", "nodes_up", "nodes_total", "capacity_bytes", "used_bytes", "free_bytes", "logical_bytes", "unique_bytes", "stored_bytes", "segment_bytes", "blocks", "segments", "volumes", "sessions", "jobs", "uptime_s", "shards_to_delete", "commits", "transactions", "damage_reports", "requests", "figures", "charged_bytes", "mounts", "endangered_segments", "critical_segments", "lost_segments", "scrub")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    NODES_UP_FIELD_NUMBER: _ClassVar[int]
    NODES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOGICAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNIQUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    SHARDS_TO_DELETE_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    TRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
    DAMAGE_REPORTS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    CHARGED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    ENDANGERED_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    LOST_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    SCRUB_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    health: str
    problems: _containers.RepeatedScalarFieldContainer[str]
    nodes_up: int
    nodes_total: int
    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int
    segment_bytes: int
    blocks: int
    segments: int
    volumes: int
    sessions: int
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    uptime_s: float
    shards_to_delete: int
    commits: int
    transactions: int
    damage_reports: int
    requests: int
    figures: Figures
    charged_bytes: int
    mounts: int
    endangered_segments: int
    critical_segments: int
    lost_segments: int
    scrub: Scrub
    def __init__(self, pool_id: _Optional[str] = ..., health: _Optional[str] = ..., problems: _Optional[_Iterable[str]] = ..., nodes_up: _Optional[int] = ..., nodes_total: _Optional[int] = ..., capacity_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., logical_bytes: _Optional[int] = ..., unique_bytes: _Optional[int] = ..., stored_bytes: _Optional[int] = ..., segment_bytes: _Optional[int] = ..., blocks: _Optional[int] = ..., segments: _Optional[int] = ..., volumes: _Optional[int] = ..., sessions: _Optional[int] = ..., jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., uptime_s: _Optional[float] = ..., shards_to_delete: _Optional[int] = ..., commits: _Optional[int] = ..., transactions: _Optional[int] = ..., damage_reports: _Optional[int] = ..., requests: _Optional[int] = ..., figures: _Optional[_Union[Figures, _Mapping]] = ..., charged_bytes: _Optional[int] = ..., mounts: _Optional[int] = ..., endangered_segments: _Optional[int] = ..., critical_segments: _Optional[int] = ..., lost_segments: _Optional[int] = ..., scrub: _Optional[_Union[Scrub, _Mapping]] = ...) -> None: ...

class Scrub(_message.Message):
    __slots__ = ("ended_ns", "shards", "bytes", "bad")
    ENDED_NS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    BAD_FIELD_NUMBER: _ClassVar[int]
    ended_ns: int
    shards: int
    bytes: int
    bad: int
    def __init__(self, ended_ns: _Optional[int] = ..., shards: _Optional[int] = ..., bytes: _Optional[int] = ..., bad: _Optional[int] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_id", "kind", "state", "subject", "done", "done_bytes", "total_bytes", "rate", "left_s", "started_ns", "volume_id", "allowed")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    LEFT_S_FIELD_NUMBER: _ClassVar[int]
    STARTED_NS_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    job_id: int
    kind: str
    state: str
    subject: str
    done: int
    done_bytes: int
    total_bytes: int
    rate: float
    left_s: float
    started_ns: int
    volume_id: int
    allowed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, job_id: _Optional[int] = ..., kind: _Optional[str] = ..., state: _Optional[str] = ..., subject: _Optional[str] = ..., done: _Optional[int] = ..., done_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., rate: _Optional[float] = ..., left_s: _Optional[float] = ..., started_ns: _Optional[int] = ..., volume_id: _Optional[int] = ..., allowed: _Optional[_Iterable[str]] = ...) -> None: ...

class JobControl(_message.Message):
    __slots__ = ("job_id", "action")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    job_id: int
    action: str
    def __init__(self, job_id: _Optional[int] = ..., action: _Optional[str] = ...) -> None: ...

class JobStart(_message.Message):
    __slots__ = ("kind",)
    KIND_FIELD_NUMBER: _ClassVar[int]
    kind: str
    def __init__(self, kind: _Optional[str] = ...) -> None: ...

class NodeControl(_message.Message):
    __slots__ = ("node_id", "action")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    action: str
    def __init__(self, node_id: _Optional[int] = ..., action: _Optional[str] = ...) -> None: ...

class DiffRequest(_message.Message):
    __slots__ = ("before", "after")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    before: str
    after: str
    def __init__(self, before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class DiffEntry(_message.Message):
    __slots__ = ("change", "path", "new_path", "kind", "content", "attributes", "before_bytes", "after_bytes")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    NEW_PATH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    BEFORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    AFTER_BYTES_FIELD_NUMBER: _ClassVar[int]
    change: str
    path: bytes
    new_path: bytes
    kind: str
    content: bool
    attributes: bool
    before_bytes: int
    after_bytes: int
    def __init__(self, change: _Optional[str] = ..., path: _Optional[bytes] = ..., new_path: _Optional[bytes] = ..., kind: _Optional[str] = ..., content: _Optional[bool] = ..., attributes: _Optional[bool] = ..., before_bytes: _Optional[int] = ..., after_bytes: _Optional[int] = ...) -> None: ...

class DiffPage(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[DiffEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[DiffEntry, _Mapping]]] = ...) -> None: ...

class FreedRequest(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class FreedReply(_message.Message):
    __slots__ = ("logical_bytes", "unique_bytes", "stored_bytes", "segment_bytes")
    LOGICAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNIQUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int
    segment_bytes: int
    def __init__(self, logical_bytes: _Optional[int] = ..., unique_bytes: _Optional[int] = ..., stored_bytes: _Optional[int] = ..., segment_bytes: _Optional[int] = ...) -> None: ...

class CopyFiles(_message.Message):
    __slots__ = ("source", "source_path", "target", "target_path", "replace")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PATH_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TARGET_PATH_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    source: str
    source_path: bytes
    target: str
    target_path: bytes
    replace: bool
    def __init__(self, source: _Optional[str] = ..., source_path: _Optional[bytes] = ..., target: _Optional[str] = ..., target_path: _Optional[bytes] = ..., replace: _Optional[bool] = ...) -> None: ...

class CopyFilesReply(_message.Message):
    __slots__ = ("files", "bytes", "path", "unattended")
    FILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    UNATTENDED_FIELD_NUMBER: _ClassVar[int]
    files: int
    bytes: int
    path: bytes
    unattended: bool
    def __init__(self, files: _Optional[int] = ..., bytes: _Optional[int] = ..., path: _Optional[bytes] = ..., unattended: _Optional[bool] = ...) -> None: ...

class Schedule(_message.Message):
    __slots__ = ("volume", "label", "every_s", "keep", "next_ns", "schedule_id", "last_error")
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    EVERY_S_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    NEXT_NS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    volume: str
    label: str
    every_s: int
    keep: int
    next_ns: int
    schedule_id: int
    last_error: str
    def __init__(self, volume: _Optional[str] = ..., label: _Optional[str] = ..., every_s: _Optional[int] = ..., keep: _Optional[int] = ..., next_ns: _Optional[int] = ..., schedule_id: _Optional[int] = ..., last_error: _Optional[str] = ...) -> None: ...

class ScheduleName(_message.Message):
    __slots__ = ("volume", "label")
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    volume: str
    label: str
    def __init__(self, volume: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class ScheduleList(_message.Message):
    __slots__ = ("schedules",)
    SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    schedules: _containers.RepeatedCompositeFieldContainer[Schedule]
    def __init__(self, schedules: _Optional[_Iterable[_Union[Schedule, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Changed(_message.Message):
    __slots__ = ("tree", "nodes", "jobs", "schedules", "figures")
    TREE_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    tree: bool
    nodes: bool
    jobs: bool
    schedules: bool
    figures: Figures
    def __init__(self, tree: _Optional[bool] = ..., nodes: _Optional[bool] = ..., jobs: _Optional[bool] = ..., schedules: _Optional[bool] = ..., figures: _Optional[_Union[Figures, _Mapping]] = ...) -> None: ...

class CheckRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckItem(_message.Message):
    __slots__ = ("problem", "expected", "summary")
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    problem: str
    expected: ExpectedShards
    summary: CheckSummary
    def __init__(self, problem: _Optional[str] = ..., expected: _Optional[_Union[ExpectedShards, _Mapping]] = ..., summary: _Optional[_Union[CheckSummary, _Mapping]] = ...) -> None: ...

class ExpectedShards(_message.Message):
    __slots__ = ("node_id", "packed", "committed")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    packed: bytes
    committed: bool
    def __init__(self, node_id: _Optional[int] = ..., packed: _Optional[bytes] = ..., committed: _Optional[bool] = ...) -> None: ...

class CheckSummary(_message.Message):
    __slots__ = ("volumes", "records", "blocks", "segments")
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    volumes: int
    records: int
    blocks: int
    segments: int
    def __init__(self, volumes: _Optional[int] = ..., records: _Optional[int] = ..., blocks: _Optional[int] = ..., segments: _Optional[int] = ...) -> None: ...

class NodeReport(_message.Message):
    __slots__ = ("hello", "heartbeat", "deleted", "inventory", "task_done", "scrubbed")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_FIELD_NUMBER: _ClassVar[int]
    TASK_DONE_FIELD_NUMBER: _ClassVar[int]
    SCRUBBED_FIELD_NUMBER: _ClassVar[int]
    hello: NodeHello
    heartbeat: NodeHeartbeat
    deleted: ShardsDeleted
    inventory: Inventory
    task_done: TaskDone
    scrubbed: ShardsScrubbed
    def __init__(self, hello: _Optional[_Union[NodeHello, _Mapping]] = ..., heartbeat: _Optional[_Union[NodeHeartbeat, _Mapping]] = ..., deleted: _Optional[_Union[ShardsDeleted, _Mapping]] = ..., inventory: _Optional[_Union[Inventory, _Mapping]] = ..., task_done: _Optional[_Union[TaskDone, _Mapping]] = ..., scrubbed: _Optional[_Union[ShardsScrubbed, _Mapping]] = ...) -> None: ...

class NodeHello(_message.Message):
    __slots__ = ("protocol", "pool_id", "node_id", "disk_uuid", "address", "generation", "domain", "data_folder")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DISK_UUID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    DATA_FOLDER_FIELD_NUMBER: _ClassVar[int]
    protocol: ProtocolVersion
    pool_id: str
    node_id: int
    disk_uuid: str
    address: str
    generation: int
    domain: str
    data_folder: str
    def __init__(self, protocol: _Optional[_Union[ProtocolVersion, _Mapping]] = ..., pool_id: _Optional[str] = ..., node_id: _Optional[int] = ..., disk_uuid: _Optional[str] = ..., address: _Optional[str] = ..., generation: _Optional[int] = ..., domain: _Optional[str] = ..., data_folder: _Optional[str] = ...) -> None: ...

class NodeHeartbeat(_message.Message):
    __slots__ = ("capacity_bytes", "used_bytes", "free_bytes", "shards", "backing_files", "failed", "file_system")
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    BACKING_FILES_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    FILE_SYSTEM_FIELD_NUMBER: _ClassVar[int]
    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    shards: int
    backing_files: int
    failed: bool
    file_system: str
    def __init__(self, capacity_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., shards: _Optional[int] = ..., backing_files: _Optional[int] = ..., failed: _Optional[bool] = ..., file_system: _Optional[str] = ...) -> None: ...

class ShardsDeleted(_message.Message):
    __slots__ = ("packed",)
    PACKED_FIELD_NUMBER: _ClassVar[int]
    packed: bytes
    def __init__(self, packed: _Optional[bytes] = ...) -> None: ...

class Inventory(_message.Message):
    __slots__ = ("inventory_id", "packed", "last")
    INVENTORY_ID_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    inventory_id: int
    packed: bytes
    last: bool
    def __init__(self, inventory_id: _Optional[int] = ..., packed: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class NodeOrder(_message.Message):
    __slots__ = ("welcome", "delete", "send_inventory", "refused", "rebuild_shard", "pack_blocks", "scrub_shards", "cancel_task")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    SEND_INVENTORY_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REBUILD_SHARD_FIELD_NUMBER: _ClassVar[int]
    PACK_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SCRUB_SHARDS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_TASK_FIELD_NUMBER: _ClassVar[int]
    welcome: NodeWelcome
    delete: DeleteShards
    send_inventory: SendInventory
    refused: Failure
    rebuild_shard: RebuildShard
    pack_blocks: PackBlocks
    scrub_shards: ScrubShards
    cancel_task: CancelTask
    def __init__(self, welcome: _Optional[_Union[NodeWelcome, _Mapping]] = ..., delete: _Optional[_Union[DeleteShards, _Mapping]] = ..., send_inventory: _Optional[_Union[SendInventory, _Mapping]] = ..., refused: _Optional[_Union[Failure, _Mapping]] = ..., rebuild_shard: _Optional[_Union[RebuildShard, _Mapping]] = ..., pack_blocks: _Optional[_Union[PackBlocks, _Mapping]] = ..., scrub_shards: _Optional[_Union[ScrubShards, _Mapping]] = ..., cancel_task: _Optional[_Union[CancelTask, _Mapping]] = ...) -> None: ...

class NodeWelcome(_message.Message):
    __slots__ = ("protocol", "pool_id", "node_id", "heartbeat_s")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    protocol: ProtocolVersion
    pool_id: str
    node_id: int
    heartbeat_s: float
    def __init__(self, protocol: _Optional[_Union[ProtocolVersion, _Mapping]] = ..., pool_id: _Optional[str] = ..., node_id: _Optional[int] = ..., heartbeat_s: _Optional[float] = ...) -> None: ...

class DeleteShards(_message.Message):
    __slots__ = ("packed",)
    PACKED_FIELD_NUMBER: _ClassVar[int]
    packed: bytes
    def __init__(self, packed: _Optional[bytes] = ...) -> None: ...

class SendInventory(_message.Message):
    __slots__ = ("inventory_id",)
    INVENTORY_ID_FIELD_NUMBER: _ClassVar[int]
    inventory_id: int
    def __init__(self, inventory_id: _Optional[int] = ...) -> None: ...

class RebuildShard(_message.Message):
    __slots__ = ("task_id", "segment", "shard", "unusable", "addresses", "set_aside")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    UNUSABLE_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    SET_ASIDE_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    segment: Segment
    shard: int
    unusable: _containers.RepeatedScalarFieldContainer[int]
    addresses: _containers.RepeatedCompositeFieldContainer[NodeAddress]
    set_aside: bool
    def __init__(self, task_id: _Optional[int] = ..., segment: _Optional[_Union[Segment, _Mapping]] = ..., shard: _Optional[int] = ..., unusable: _Optional[_Iterable[int]] = ..., addresses: _Optional[_Iterable[_Union[NodeAddress, _Mapping]]] = ..., set_aside: _Optional[bool] = ...) -> None: ...

class NodeAddress(_message.Message):
    __slots__ = ("node_id", "address")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    address: str
    def __init__(self, node_id: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class PackBlocks(_message.Message):
    __slots__ = ("task_id", "target", "blocks", "sources", "addresses", "unusable")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    UNUSABLE_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    target: Segment
    blocks: _containers.RepeatedCompositeFieldContainer[PackedBlock]
    sources: _containers.RepeatedCompositeFieldContainer[Segment]
    addresses: _containers.RepeatedCompositeFieldContainer[NodeAddress]
    unusable: _containers.RepeatedCompositeFieldContainer[BadShard]
    def __init__(self, task_id: _Optional[int] = ..., target: _Optional[_Union[Segment, _Mapping]] = ..., blocks: _Optional[_Iterable[_Union[PackedBlock, _Mapping]]] = ..., sources: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., addresses: _Optional[_Iterable[_Union[NodeAddress, _Mapping]]] = ..., unusable: _Optional[_Iterable[_Union[BadShard, _Mapping]]] = ...) -> None: ...

class PackedBlock(_message.Message):
    __slots__ = ("segment_id", "offset", "stored_bytes", "checksum")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    offset: int
    stored_bytes: int
    checksum: int
    def __init__(self, segment_id: _Optional[int] = ..., offset: _Optional[int] = ..., stored_bytes: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...

class BadShard(_message.Message):
    __slots__ = ("segment_id", "shard", "reason", "missing")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    shard: int
    reason: str
    missing: bool
    def __init__(self, segment_id: _Optional[int] = ..., shard: _Optional[int] = ..., reason: _Optional[str] = ..., missing: _Optional[bool] = ...) -> None: ...

class TaskDone(_message.Message):
    __slots__ = ("task_id", "failure", "bad", "read_bytes", "written_bytes")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    BAD_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    failure: Failure
    bad: _containers.RepeatedCompositeFieldContainer[BadShard]
    read_bytes: int
    written_bytes: int
    def __init__(self, task_id: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., bad: _Optional[_Iterable[_Union[BadShard, _Mapping]]] = ..., read_bytes: _Optional[int] = ..., written_bytes: _Optional[int] = ...) -> None: ...

class CancelTask(_message.Message):
    __slots__ = ("task_id",)
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: int
    def __init__(self, task_id: _Optional[int] = ...) -> None: ...

class ScrubShards(_message.Message):
    __slots__ = ("scrub_id", "after_segment", "bytes_per_s")
    SCRUB_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEGMENT_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    scrub_id: int
    after_segment: int
    bytes_per_s: int
    def __init__(self, scrub_id: _Optional[int] = ..., after_segment: _Optional[int] = ..., bytes_per_s: _Optional[int] = ...) -> None: ...

class ShardsScrubbed(_message.Message):
    __slots__ = ("scrub_id", "upto_segment", "shards", "bytes", "bad", "done")
    SCRUB_ID_FIELD_NUMBER: _ClassVar[int]
    UPTO_SEGMENT_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    BAD_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    scrub_id: int
    upto_segment: int
    shards: int
    bytes: int
    bad: _containers.RepeatedCompositeFieldContainer[BadShard]
    done: bool
    def __init__(self, scrub_id: _Optional[int] = ..., upto_segment: _Optional[int] = ..., shards: _Optional[int] = ..., bytes: _Optional[int] = ..., bad: _Optional[_Iterable[_Union[BadShard, _Mapping]]] = ..., done: _Optional[bool] = ...) -> None: ...
