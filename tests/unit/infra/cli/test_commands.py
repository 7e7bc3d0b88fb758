"""Commands that need no server, run whole: what they print and how they end."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest

from infra.cli import exits
from infra.cli.app import run
from infra.cli.case_commands import case_of
from infra.cli.status_view import show_status
from infra.status import ServerReport, StackReport, WorkerReport
from schema_registry.contracts import contracts

CSV = "timestamp,block_number,tx_hash,from_address,to_address,value_eth,contract_address,is_error\n"
ROW = "1438920403,46275,0x{n:064x},0x{a:040x},0x{b:040x},{value},NULL,0\n"


@pytest.fixture(autouse=True)
def _no_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("TIDEMARK_STACK", raising=False)


def ethereum(folder: Path) -> Path:
    file = folder / "eth.csv"
    rows = [ROW.format(n=n, a=n, b=n + 1, value="0.5") for n in range(1, 4)] + [ROW.format(n=9, a=1, b=2, value="-1")]
    file.write_text(CSV + "".join(rows))
    return file


def test_a_dry_run_shows_and_counts_and_sends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ingest", str(ethereum(tmp_path)), "--dry-run", "--json"]) == exits.OK
    found = json.loads(capsys.readouterr().out)
    assert (found["rows_read"], found["accepted"], sum(found["refused"].values())) == (4, 3, 1)
    assert found["first"][0]["source_wallet_id"] == "ethereum:0x" + "1".zfill(40)


def test_a_mapping_is_drafted_from_a_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ingest", str(ethereum(tmp_path)), "--suggest"]) == exits.OK
    assert "transaction_id" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["verify"], ["ingest", "FILE"], ["train"], ["deploy"], ["alerts", "list"], ["quarantine", "list"], ["rebuild", "graph"],
     ["resend", "notifier", "--from", "earliest"],
     ["investigate", "ethereum:0x1"], ["score", "ethereum:0x1:0"], ["freeze", "ethereum:0x1", "--reason", "x"]],
)  # fmt: skip
def test_without_a_stack_one_sentence_says_what_to_do(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(ethereum(tmp_path)) if word == "FILE" else word for word in arguments]
    assert run(given) == exits.DOWN
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "`tidemark up`" in shown.err and len(shown.err.strip().splitlines()) == 1


def test_status_and_down_work_where_nothing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status"]) == exits.DOWN
    assert "tidemark up" in capsys.readouterr().out
    assert run(["status", "--json"]) == exits.DOWN
    found = json.loads(capsys.readouterr().out)
    assert (found["is_up"], found["is_ready"], found["is_caught_up"]) == (False, False, False)
    assert run(["--stack", "other", "status"]) == exits.DOWN
    assert "start it with `tidemark --stack other up`" in capsys.readouterr().out
    assert run(["down"]) == exits.OK
    assert run(["down", "--all"]) == exits.OK


def test_doctor_says_of_every_server_how_to_start_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == exits.DOWN
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert findings and [found["server"] for found in findings if "`tidemark up`" not in found["advice"]] == []


def test_waiting_names_who_can_be_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    token = "commands:0:1@5L6g3nShT-eMCtK--X86sw"
    assert run(["wait", token, "--for", "nobody"]) == exits.USAGE
    assert "curated" in capsys.readouterr().err
    assert run(["wait", token, "--for", "curated"]) == exits.DOWN


def test_simulated_cards_are_a_file_with_the_share_of_fraud_of_kaggle_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "creditcard.csv"
    assert run(["simulate", "--shape", "cards", "--out", str(out), "--count", "20000", "--json"]) == exits.OK
    found = json.loads(capsys.readouterr().out)
    assert (found["transactions"], found["frauds"]) == (20_000, 35) and len(out.read_text().splitlines()) == 20_001


@pytest.mark.parametrize("wrong", [["--to", "kafka"], ["--rate", "5"], ["--truth", "t.csv"], ["--out", "cards.parquet"]], ids=" ".join)
def test_simulated_cards_go_nowhere_else(wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["simulate", "--shape", "cards", "--count", "200", "--out", str(tmp_path / "a.csv"), *wrong]
    assert run(arguments) == exits.USAGE
    said = "ends in .csv or .csv.gz" if wrong[0] == "--out" else "--to file --out creditcard.csv"
    assert said in " ".join(capsys.readouterr().err.split())


def test_simulated_files_come_with_their_truth_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "stream.csv"
    assert run(["simulate", "--to", "file", "--out", str(out), "--count", "200", "--json"]) == exits.OK
    found = json.loads(capsys.readouterr().out)
    assert found["transactions"] == 200
    assert out.exists() and Path(found["labels"]).exists() and Path(found["schemes"]).exists()
    assert "illicit" not in out.read_text()


def test_a_folder_of_samples_is_read_back_and_harmless_in_a_spreadsheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "samples"
    assert run(["simulate", "--to", "file", "--out", str(out), "--count", "300", "--json"]) == exits.OK
    written = json.loads(capsys.readouterr().out)["transactions"]
    transactions, labels = out / "sample_transactions.csv", out / "fraud_labels.csv"
    for file, name in ((transactions, "tidemark"), (labels, "tidemark_labels")):
        rows = list(csv.reader(file.open(newline="", encoding="utf-8")))
        assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        assert run(["ingest", str(file), "--dry-run", "--json"]) == exits.OK
        found = json.loads(capsys.readouterr().out)
        assert found["mapping"].startswith(name) and found["accepted"] == found["rows_read"] == len(rows) - 1
    assert len(rows) > 1 and written == 300


def test_queries_are_listed_and_their_sql_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["query", "--list", "--json"]) == exits.OK
    assert "fan-in" in {item["name"] for item in json.loads(capsys.readouterr().out)}
    assert run(["query", "fan-in", "--sql"]) == exits.OK
    assert capsys.readouterr().out.startswith("SELECT t.target_wallet_id")
    assert run(["query", "fan-ni"]) == exits.FAILED
    assert "expected one of wallet-history" in capsys.readouterr().err


def test_a_batch_is_told_apart_from_a_recorded_score(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["score", "bank:1:0", "--from", "s3"]) == exits.USAGE
    assert run(["score", "bank:1:0", "--since", "5"]) == exits.USAGE
    assert run(["score", "--from", "s3", "--since", "yesterday"]) == exits.USAGE
    assert "earliest" in capsys.readouterr().err
    assert run(["score", "--from", "s3"]) == exits.DOWN


def test_contracts_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schemas", "list", "--json"]) == exits.OK
    assert {item["name"] for item in json.loads(capsys.readouterr().out)} == set(contracts())
    assert run(["schemas", "show", "TransactionRecorded"]) == exits.OK
    assert "tx_id" in capsys.readouterr().out
    assert run(["schemas", "show", "TransactionRecorde"]) == exits.FAILED
    assert "did you mean TransactionRecorded?" in capsys.readouterr().err


def changed(name: str, change: Any) -> dict[str, Any]:
    schema = copy.deepcopy(contracts()[name].latest)
    change(schema)
    return schema


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (lambda schema: None, exits.OK, "already"),
        (
            lambda s: s["fields"].append({"name": "new", "type": ["null", "string"], "default": None, "doc": "New."}),
            exits.OK,
            "may become version 2",
        ),
        (lambda s: s["fields"].append({"name": "new", "type": "string", "doc": "New."}), exits.FAILED, "no default"),
        (lambda s: s["fields"].pop(0), exits.FAILED, "missing"),
    ],
)
def test_a_new_schema_is_held_against_the_history(
    change: Any, status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new.avsc"
    file.write_text(json.dumps(changed("WalletLabelled", change)))
    assert run(["schemas", "check", str(file)]) == status
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"type": "record", "name": "Nobody", "fields": []}'])
def test_a_file_that_is_no_schema_is_one_sentence(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.avsc"
    file.write_text(text)
    assert run(["schemas", "check", str(file)]) == exits.FAILED
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("dialect", ["postgresql", "redshift"])
def test_the_layout_is_printed(dialect: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["warehouse", "ddl", "--dialect", dialect]) == exits.OK
    assert "CREATE TABLE fact_transaction" in capsys.readouterr().out


def test_a_case_is_found_by_its_beginning() -> None:
    cases = [{"case_id": "4f6c"}, {"case_id": "4f7a"}, {"case_id": "4f7"}]
    assert case_of(cases, "4f6")["case_id"] == "4f6c"
    assert case_of(cases, "4f7")["case_id"] == "4f7", "a whole id wins"
    with pytest.raises(Exception, match="3 cases begin"):
        case_of(cases, "4f")
    with pytest.raises(Exception, match="no case"):
        case_of(cases, "zz")


def test_caught_up_is_said_of_a_position_equal_to_the_head_alone(capsys: pytest.CaptureFixture[str]) -> None:
    tp = ("transaction-events", 0)
    server = ServerReport("kafka", "ready", True, 1, 0, "127.0.0.1:1", None)
    behind = WorkerReport("graph", "ready", 2, 0, {tp: 5}, {tp: 9}, 4, False, records_per_s=2.0, eta_s=2.0)
    show_status(StackReport("demo", "/x", True, [server], [behind]))
    shown = capsys.readouterr().out
    assert "behind, about 2 s left" in shown and "caught up" not in shown
    there = WorkerReport("graph", "ready", 2, 0, {tp: 9}, {tp: 9}, 0, True)
    show_status(StackReport("demo", "/x", True, [server], [there]))
    assert "caught up" in capsys.readouterr().out
    unknown = WorkerReport("graph", "ready", 2, problem="its position cannot be read: neo4j is down")
    show_status(StackReport("demo", "/x", True, [server], [unknown]))
    shown = capsys.readouterr().out
    assert "caught up" not in shown and "neo4j is down" in shown
