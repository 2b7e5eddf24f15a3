"""The version store: every volume's metadata with its history, in one ordered key-value map.

`VersionStore` reads and writes over an overlay, `VersionReader` reads over any read access, `verify` proves the tables
from scratch. All are pure; the caller applies the overlay's changes in one transaction.
"""

from redfs.core.versions.ancestry import Ancestry
from redfs.core.versions.audit import audit_weights
from redfs.core.versions.layout import TABLES, Holder, HolderType, LineageRecord, Pin
from redfs.core.versions.reader import VersionReader
from redfs.core.versions.store import ReclaimStep, VersionStore
from redfs.core.versions.verify import LineageStats, lineage_stats, verify
from redfs.core.versions.weights import Weight
from redfs.core.versions.writer import OnFreed

__all__ = [
    "TABLES",
    "Ancestry",
    "Holder",
    "HolderType",
    "LineageRecord",
    "LineageStats",
    "OnFreed",
    "Pin",
    "ReclaimStep",
    "VersionReader",
    "VersionStore",
    "Weight",
    "audit_weights",
    "lineage_stats",
    "verify",
]
