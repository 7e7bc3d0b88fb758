"""The producer of the docs, run as it stands there, against a real Kafka and registry: what it sends is a command."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

from infra.kafka.admin import TopicAdmin
from infra.kafka.reading import read_batches
from schema_registry.client import Registry
from schema_registry.contracts import COMMANDS, PARTITIONS
from schema_registry.record_codec import RecordCodec

PAGE = Path(__file__).parents[2] / "docs" / "producing.md"
TIMEOUT_S = 90.0


def producer_of_the_docs() -> str:
    """The page's one Python block."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1, f"expected one Python block in {PAGE.name}, found {len(blocks)}"
    return str(blocks[0])


def test_the_producer_of_the_docs_sends_a_command_that_we_can_decode(kafka_bootstrap: str, registry_url: str, tmp_path: Path) -> None:
    kafka = {"bootstrap.servers": kafka_bootstrap}
    catalog = Registry({"url": registry_url}).establish()
    admin = TopicAdmin(kafka)
    admin.create(PARTITIONS)
    before = admin.ends([COMMANDS])
    program = tmp_path / "producer.py"
    program.write_text(producer_of_the_docs(), "utf-8")

    ended = subprocess.run([sys.executable, str(program), kafka_bootstrap, registry_url], capture_output=True, text=True, timeout=TIMEOUT_S)

    assert ended.returncode == 0, ended.stderr
    batches = list(read_batches(kafka, [COMMANDS], before, admin.ends([COMMANDS])))
    sent = [(key, *RecordCodec(catalog).decode(value)) for batch in batches for key, value in zip(batch.keys, batch.values, strict=True)]
    found = [(key, name, record) for key, name, record in sent if record.get("tx_id") == "bank:2026-000017:0"]
    assert len(found) == 1
    key, name, record = found[0]
    assert (key, name) == (b"bank:4711", "TransactionRecorded")
    assert record["amount"] == Decimal("129.90")
    assert record["origin"]["row"] == 17
    assert record["personal"] is None
