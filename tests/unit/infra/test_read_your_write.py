"""A token names one place in one log, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidValue
from infra.cli import exits
from infra.cli.app import run
from infra.read_your_write import WriteToken, wait_for

LOG_ID = "5L6g3nShT-eMCtK--X86sw"


@given(st.integers(0, 2**63 - 1))
def test_a_token_is_read_back_from_its_text(offset: int) -> None:
    token = WriteToken(offset, LOG_ID)
    assert WriteToken.parse(str(token)) == token
    assert WriteToken.parse(f"  {token}\n") == token


@pytest.mark.parametrize(
    "text",
    ["", "commands:0:5", "commands:0:-5@x", "commands:1:5@x", "wallet-events:0:5@x", "commands:0:5@", "commands:0:٥@x",
     f"commands:0:{2**63}@x", "commands:0:5@x; DROP TABLE", "\x1b[2J"],
)  # fmt: skip
def test_other_text_is_refused_with_a_sentence(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidValue, match="as `tidemark ingest` prints it"):
        WriteToken.parse(text)
    assert run(["wait", "--for", "warehouse", "--", text]) == exits.USAGE


def test_a_reader_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidValue, match="expected one of archive, curated, warehouse, graph, scorer, alerts"):
        wait_for(str(WriteToken(1, LOG_ID)), "notifier")
