"""The Confluent wire format: a zero byte, the schema id as four bytes big-endian, then the Avro body.

Source: Confluent Schema Registry, "Wire format".
"""

from __future__ import annotations

import struct

from schema_registry.errors import UndecodableRecord

HEADER_LENGTH = 5  # bytes
_HEADER = struct.Struct(">BI")


def frame(schema_id: int, body: bytes) -> bytes:
    """`body` behind the header of `schema_id`."""
    return _HEADER.pack(0, schema_id) + body


def schema_id_of(value: bytes | None) -> int:
    """The schema id that a record's value names.

    Raises:
        UndecodableRecord: `no_value` for a null, `not_framed` for bytes without the header.
    """
    if value is None:
        raise UndecodableRecord("no_value", "expected a framed Avro value, found a null (events are never deleted)")
    if len(value) < HEADER_LENGTH or value[0] != 0:
        raise UndecodableRecord(
            "not_framed", f"expected a zero byte and a 4-byte schema id, found {value[:HEADER_LENGTH].hex() or 'nothing'}"
        )
    schema_id: int = _HEADER.unpack_from(value)[1]
    return schema_id
