"""A Lambda event from Kafka: as AWS documents it, both ways, whatever bytes are in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.log import Record
from infra.lambdas.kafka_event import event_of, records_of

# AWS Lambda Developer Guide, "Using Lambda with self-managed Apache Kafka", example event.
DOCUMENTED = {
    "eventSource": "SelfManagedKafka",
    "bootstrapServers": "b-2.demo-cluster-1.a1bcde.c1.kafka.us-east-1.amazonaws.com:9092",
    "records": {
        "mytopic-0": [
            {
                "topic": "mytopic", "partition": 0, "offset": 15, "timestamp": 1545084650987, "timestampType": "CREATE_TIME",
                "key": "abcDEFghiJKLmnoPQRstuVWXyz1234==", "value": "SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",
                "headers": [{"headerKey": [104, 101, 97, 100, 101, 114, 86, 97, 108, 117, 101]}],
            }
        ]
    },
}  # fmt: skip
bytes_or_none = st.none() | st.binary(max_size=40)
headers = st.lists(st.tuples(st.text(min_size=1, max_size=5), st.binary(max_size=9)), max_size=3).map(tuple)
offsets = st.integers(0, 1 << 40)
records = st.builds(Record, st.sampled_from(["a", "b-1"]), st.integers(0, 3), offsets, offsets, bytes_or_none, bytes_or_none, headers)


def test_the_documented_event_is_read() -> None:
    (record,) = records_of(DOCUMENTED)
    assert (record.topic, record.partition, record.offset, record.timestamp_ms) == ("mytopic", 0, 15, 1545084650987)
    assert record.value == b"Hello, this is a test." and record.headers == (("headerKey", b"headerValue"),)


def test_msk_is_read_alike_and_any_other_source_is_refused() -> None:
    assert records_of({**DOCUMENTED, "eventSource": "aws:kafka"}) == records_of(DOCUMENTED)
    with pytest.raises(ValueError, match="expected an event of SelfManagedKafka or aws:kafka, found 'aws:sqs'"):
        records_of({"eventSource": "aws:sqs", "Records": []})


def test_an_event_is_as_lambda_sends_it() -> None:
    event = event_of([Record("t", 2, 7, 5, b"k", b"\xff", (("seq", b"\x00\xff"), ("none", None)))], "h:1")
    assert event["eventSource"] == "SelfManagedKafka" and event["bootstrapServers"] == "h:1"
    (item,) = event["records"]["t-2"]
    assert item == {
        "topic": "t", "partition": 2, "offset": 7, "timestamp": 5, "timestampType": "CREATE_TIME", "key": "aw==", "value": "/w==",
        "headers": [{"seq": [0, -1]}],
    }  # fmt: skip


@given(st.lists(records, max_size=12))
def test_what_is_written_is_read(given: list[Record]) -> None:
    found = records_of(json.loads(json.dumps(event_of(given, "h:1"))))
    places = sorted({(record.topic, record.partition) for record in given})
    for place in places:
        assert [r for r in found if (r.topic, r.partition) == place] == [r for r in given if (r.topic, r.partition) == place]
    assert len(found) == len(given)
