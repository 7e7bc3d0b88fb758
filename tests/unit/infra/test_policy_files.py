"""Policies as files: the shipped one, and what a file may not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.policy import Policy, PolicyError
from infra.plain_yaml import MAX_BYTES
from infra.policy_files import read_policy, shipped
from infra.policy_trial import of_file, try_policy
from infra.simulator.delivery import write_stream
from infra.simulator.generator import SimulatorOptions, simulate
from infra.sources.shipped import transaction_mapping


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_policy_is_read_and_survives_the_log(name: str) -> None:
    found = read_policy(name)
    assert found.name == name and found.rules
    assert Policy.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: [", "yaml: "),
        ("name: a\nname: b\nversion: 1\n", "line 2: expected each field once, found 'name' again"),
        ("name: &a x\nversion: 1\n", "expected plain values, found an anchor"),
        ("name: !!python/object:os.system x\n", "expected plain values, found a tag"),
        ("a" * (MAX_BYTES + 1), "expected at most"),
        ("? [1]\n: 2\n", "yaml: "),
        ("name: {<<: {a: 1, a: 2}}\n", "line 1: expected plain values, found a merge (<<)"),
        ('name: "\\UFFFFFFFF"\n', "yaml: "),
        ("name: 1" + ":00" * 180 + ".0\n", "yaml: "),
        ("version: 0x" + "F" * 4000 + "\n", "very many digits"),
        ("42", "policy: expected fields with values, found 42"),
    ],
)
def test_what_is_no_policy_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(PolicyError) as found:
        read_policy(str(file))
    assert expected in str(found.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(PolicyError, match=r"nowhere\.yaml: expected a file or one of shop, standard"):
        read_policy("nowhere.yaml")


def test_a_file_s_transactions_are_judged_in_their_order(tmp_path: Path) -> None:
    file, policy = tmp_path / "s.jsonl", tmp_path / "p.yaml"
    write_stream(simulate(SimulatorOptions(count=1_000, seed=2)), file)
    policy.write_text(
        "name: p\nversion: 1\nrules:\n"
        "  - {name: twice, says: '{count} sent', per: source_wallet_id, within: 31d, count_at_least: 2}\n"
        "  - {name: cards, says: '{asset}', where: {network: card}}\n"
    )
    trial = try_policy(read_policy(str(policy)), of_file(str(file), transaction_mapping("tidemark")))
    table = simulate(SimulatorOptions(count=1_000, seed=2)).table
    cards = table["network"].to_pylist().count("card")
    assert trial.transactions == 1_000 and trial.rules["cards"].hits == cards > 0
    assert 0 < trial.rules["twice"].hits < 1_000 and trial.rules["twice"].wallets <= trial.alerted
    assert all(tx_id for tx_id, _, _ in trial.rules["twice"].examples)
    assert trial.as_json()["rules"][1]["rule"] == "cards"
