"""A mapping's batches, retries, halves and passing over, on a stream of moto's; and a split shard in its order."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from moto import mock_aws

from infra.lambdas.event_source import END, EventSourceOptions, KinesisEventSource
from infra.lambdas.runtime import FunctionError

STREAM = "s"


class Kept:
    """Checkpoints and failure letters in memory."""

    def __init__(self) -> None:
        self.positions: dict[str, str] = {}
        self.letters: list[Mapping[str, Any]] = []

    def load(self, stream: str, shard: str) -> str | None:
        return self.positions.get(f"{stream}/{shard}")

    def save(self, stream: str, shard: str, sequence_number: str) -> None:
        self.positions[f"{stream}/{shard}"] = sequence_number

    def send(self, letters: Sequence[Mapping[str, Any]]) -> None:
        self.letters += letters


class Recorder:
    """A function that does what `act` says with the texts of a batch, and remembers every call."""

    def __init__(self, act: Callable[[list[str], list[str]], Any] = lambda texts, numbers: None) -> None:
        self.act = act
        self.calls: list[list[str]] = []
        self.done: list[str] = []

    def __call__(self, event: dict[str, Any]) -> Any:
        texts = [base64.b64decode(item["kinesis"]["data"]).decode() for item in event["Records"]]
        numbers = [item["kinesis"]["sequenceNumber"] for item in event["Records"]]
        self.calls.append(texts)
        answer = self.act(texts, numbers)
        failed = {failure["itemIdentifier"] for failure in (answer or {}).get("batchItemFailures", ())} if answer else set()
        first = min((numbers.index(name) for name in failed if name in numbers), default=len(numbers))
        self.done += texts[:first]
        return answer


@pytest.fixture
def kinesis() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("kinesis", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
        client.create_stream(StreamName=STREAM, ShardCount=1)
        yield client


@pytest.fixture
def kept() -> Kept:
    return Kept()


def put(kinesis: Any, *texts: str) -> None:
    for text in texts:
        kinesis.put_record(StreamName=STREAM, PartitionKey=text, Data=text.encode())


def source(kinesis: Any, function: Any, kept: Kept, stopped: Callable[[], bool] = lambda: False, **options: Any) -> KinesisEventSource:
    return KinesisEventSource(
        kinesis, STREAM, function, "f", kept, kept, EventSourceOptions(**options), stopped=stopped, sleep=lambda seconds: None
    )


def drained(mapping: KinesisEventSource) -> None:
    while mapping.poll():
        pass


def test_batches_come_in_order_and_a_second_start_goes_on_after_the_first(kinesis: Any, kept: Kept) -> None:
    put(kinesis, *"abcde")
    function = Recorder()
    drained(source(kinesis, function, kept, batch_size=2))
    assert function.calls == [["a", "b"], ["c", "d"], ["e"]]
    put(kinesis, "f")
    again = Recorder()
    drained(source(kinesis, again, kept, batch_size=2))
    assert again.calls == [["f"]]


def test_an_event_is_as_lambda_sends_it(kinesis: Any, kept: Kept) -> None:
    put(kinesis, "a")
    events: list[dict[str, Any]] = []
    drained(source(kinesis, events.append, kept))
    (item,) = events[0]["Records"]
    assert item["eventSource"] == "aws:kinesis" and item["eventName"] == "aws:kinesis:record" and item["awsRegion"] == "us-east-1"
    assert item["eventSourceARN"].endswith(":stream/s") and item["eventID"].startswith("shardId-000000000000:")
    assert item["kinesis"]["partitionKey"] == "a"


def test_what_is_named_comes_again_with_all_after_it(kinesis: Any, kept: Kept) -> None:
    put(kinesis, *"abcd")
    tries = iter([2, None])

    def partial(texts: list[str], numbers: list[str]) -> Any:
        place = next(tries)
        return {"batchItemFailures": [{"itemIdentifier": numbers[place]}]} if place is not None else {"batchItemFailures": []}

    function = Recorder(partial)
    drained(source(kinesis, function, kept))
    assert function.calls == [["a", "b", "c", "d"], ["c", "d"]]
    assert function.done == ["a", "b", "c", "d"]


def test_a_call_that_fails_comes_again_in_halves_until_one_record_is_found(kinesis: Any, kept: Kept) -> None:
    put(kinesis, *"abcdefgh")

    def dies_of_f(texts: list[str], numbers: list[str]) -> Any:
        if "f" in texts:
            raise FunctionError("Runtime.ExitError", "the process ended with status 1")
        return None

    function = Recorder(dies_of_f)
    drained(source(kinesis, function, kept, retries=2))
    assert function.done == list("abcdegh"), "each once, in order, all but the one"
    (letter,) = kept.letters
    assert letter["requestContext"]["condition"] == "RetryAttemptsExhausted" and letter["requestContext"]["approximateInvokeCount"] == 3
    info = letter["KinesisBatchInfo"]
    assert info["batchSize"] == 1 and info["startSequenceNumber"] == info["endSequenceNumber"]
    assert function.calls.count(["f"]) == 3


def test_without_limits_an_outage_is_waited_for_and_nothing_is_passed_over(kinesis: Any, kept: Kept) -> None:
    put(kinesis, *"abc")
    left = iter([True] * 40)

    def away(texts: list[str], numbers: list[str]) -> Any:
        return {"batchItemFailures": [{"itemIdentifier": numbers[0]}]} if next(left, False) else None

    function = Recorder(away)
    drained(source(kinesis, function, kept))
    assert function.done == ["a", "b", "c"] and kept.letters == [] and len(function.calls) == 41


def test_a_record_that_is_too_old_is_told_of_and_passed_over(kinesis: Any, kept: Kept) -> None:
    put(kinesis, "a")
    function = Recorder(lambda texts, numbers: {"batchItemFailures": [{"itemIdentifier": numbers[0]}]})
    drained(source(kinesis, function, kept, max_age_s=-1.0))
    assert function.calls == [] and kept.letters[0]["requestContext"]["condition"] == "RecordAgeExceeded"
    put(kinesis, "b")
    good = Recorder()
    drained(source(kinesis, good, kept))
    assert good.calls == [["b"]]


@pytest.mark.parametrize("answer", [{"batchItemFailures": [{"itemIdentifier": "nobody's"}]}, {"batchItemFailures": [{}]}, "text", [1]])
def test_an_answer_that_names_nothing_known_means_that_nothing_is_done(kinesis: Any, kept: Kept, answer: Any) -> None:
    put(kinesis, "a")
    answers = iter([answer, None])
    calls = []

    def function(event: dict[str, Any]) -> Any:
        calls.append(event)
        return next(answers)

    drained(source(kinesis, function, kept))
    assert len(calls) == 2 and kept.letters == []


def test_stopped_in_the_midst_the_rest_is_read_again(kinesis: Any, kept: Kept) -> None:
    put(kinesis, *"abcd")
    stopping: list[bool] = []

    def partial(texts: list[str], numbers: list[str]) -> Any:
        stopping.append(True)
        return {"batchItemFailures": [{"itemIdentifier": numbers[1]}]}

    source(kinesis, Recorder(partial), kept, stopped=lambda: bool(stopping)).poll()
    after = Recorder()
    drained(source(kinesis, after, kept))
    assert after.calls == [["b", "c", "d"]]


class SplitStream:
    """A stream whose shard was split, as AWS describes it: the parent ends, new records go to the children alone (moto's go on in it)."""

    def __init__(self) -> None:
        self.made_at = datetime(2026, 1, 1, tzinfo=UTC)
        self.meta = type("Meta", (), {"region_name": "us-east-1"})
        self.shards = {"shardId-000000000000": list("abcd"), "shardId-000000000001": list("eg"), "shardId-000000000002": list("fh")}

    def describe_stream_summary(self, StreamName: str) -> Any:
        summary = {"StreamARN": f"arn:aws:kinesis:us-east-1:1:stream/{StreamName}", "StreamCreationTimestamp": self.made_at}
        return {"StreamDescriptionSummary": summary}

    def list_shards(self, StreamName: str | None = None, NextToken: str | None = None) -> Any:
        # A page each, the children first: what a reader may do follows from the parents alone.
        names = sorted(self.shards, reverse=True)
        at = int(NextToken or 0)
        shard: dict[str, Any] = {"ShardId": names[at]}
        if names[at] != min(names):
            shard["ParentShardId"] = min(names)
        return {"Shards": [shard], **({"NextToken": str(at + 1)} if at + 1 < len(names) else {})}

    def get_shard_iterator(self, StreamName: str, ShardId: str, ShardIteratorType: str, StartingSequenceNumber: str = "0") -> Any:
        return {"ShardIterator": f"{ShardId}/{StartingSequenceNumber}"}

    def get_records(self, ShardIterator: str, Limit: int) -> Any:
        shard, _, after = ShardIterator.partition("/")
        begin, all_ = int(after), self.shards[shard]
        arrived = datetime(2026, 11, 28, tzinfo=UTC)
        records = [
            {"SequenceNumber": str(begin + n + 1), "Data": text.encode(), "PartitionKey": text, "ApproximateArrivalTimestamp": arrived}
            for n, text in enumerate(all_[begin : begin + Limit])
        ]
        is_drained = shard == min(self.shards) and begin + len(records) == len(all_)
        return {"Records": records, "NextShardIterator": None if is_drained else f"{shard}/{begin + len(records)}"}


def test_a_split_shard_is_read_to_its_end_before_its_children(kept: Kept) -> None:
    function, stream = Recorder(), SplitStream()
    mapping = source(stream, function, kept, batch_size=3)
    for _ in range(6):
        mapping.poll()
    assert function.done[:4] == list("abcd") and sorted(function.done) == list("abcdefgh")
    assert kept.positions["s@1767225600/shardId-000000000000"] == END
    assert source(stream, Recorder(), kept).poll() == 0, "a finished shard stays finished"
    stream.made_at = datetime(2026, 1, 2, tzinfo=UTC)
    anew = Recorder()
    drained(source(stream, anew, kept))
    assert sorted(anew.done) == list("abcdefgh"), "a stream that was made again is another one"


def test_after_a_split_on_the_double_nothing_is_lost(kinesis: Any, kept: Kept) -> None:
    put(kinesis, *"abcd")
    kinesis.update_shard_count(StreamName=STREAM, TargetShardCount=2, ScalingType="UNIFORM_SCALING")
    put(kinesis, *"efghij")
    function = Recorder()
    drained(source(kinesis, function, kept, batch_size=3))
    assert set(function.done) == set("abcdefghij")
