"""Operations in shared mode that are sent again: answered as they were the first time, and not run again.

Each has a number that is unique in its session. The answer of one that changed something is stored with the change, in
the same transaction, until the client says that it has it (`answered`), or the session ends. An operation that was
refused, or changed nothing, leaves no answer: running it again is harmless.

How far a session was answered is also remembered in memory, so that a request that was held up on an old stream is not
run after its repetition on the new one was. After a restart there are no old streams.
"""

from __future__ import annotations

from redfs.coordinator.txn import Txn, scan_pairs
from redfs.core.errors import InvalidArgument
from redfs.core.tables import OPERATIONS, OperationRow, decode_operation, encode_operation, pair_key

MAX_STORED_ANSWERS = 1024
"""Of one session: more than a client has under way."""


def stored_answer(txn: Txn, session_id: int, number: int, answered: int) -> OperationRow | None:
    """What the operation was answered with, if it was run before. InvalidArgument for a number that cannot be."""
    known = txn.env.answered_operations
    so_far = max(answered, known.get(session_id, 0))
    if number <= so_far:
        raise InvalidArgument(f"operation {number} was answered long ago, all up to {so_far} were")
    known[session_id] = so_far
    stored = txn.kv.get(OPERATIONS, pair_key(session_id, number))
    return None if stored is None else decode_operation(stored)


def store_answer(txn: Txn, session_id: int, number: int, row: OperationRow) -> None:
    """Keeps the answer with the change that it is about, and forgets those that the client has."""
    answered = txn.env.answered_operations.get(session_id, 0)
    had = pair_key(session_id, 0), pair_key(session_id, answered + 1)
    for key, _ in list(txn.kv.scan(OPERATIONS, *had)):
        txn.kv.delete(OPERATIONS, key)
    # So close to the last one answered there cannot be too many; counting costs more than the rest.
    if number - answered > MAX_STORED_ANSWERS:
        kept = sum(1 for _ in scan_pairs(txn.kv, OPERATIONS, session_id))
        if kept >= MAX_STORED_ANSWERS:
            raise InvalidArgument(f"{kept} operations of this mount wait for it to take the answers: send no more now")
    txn.kv.put(OPERATIONS, pair_key(session_id, number), encode_operation(row))
