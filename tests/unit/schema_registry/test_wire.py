"""The Confluent frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_registry.errors import UndecodableRecord
from schema_registry.wire import HEADER_LENGTH, frame, schema_id_of


@given(st.integers(0, 2**32 - 1), st.binary(max_size=8))
def test_a_frame_carries_its_id_in_front_of_the_body(schema_id: int, body: bytes) -> None:
    value = frame(schema_id, body)
    assert (schema_id_of(value), value[HEADER_LENGTH:]) == (schema_id, body)


@pytest.mark.parametrize(("value", "reason"), [(None, "no_value"), (b"\x00\x00", "not_framed"), (b"\x01\x00\x00\x00\x01", "not_framed")])
def test_what_is_not_framed_says_so(value: bytes | None, reason: str) -> None:
    with pytest.raises(UndecodableRecord) as caught:
        schema_id_of(value)
    assert caught.value.reason == reason
