"""What README and docs say is true of the program: links, settings, files, numbers; commands: `test_documented`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graph.investigation import INVESTIGATIONS
from infra.cli import exits
from infra.composition import WORKERS
from infra.settings import SECRETS_ARN_VARIABLE, SECRETS_FILE_VARIABLE, Settings
from infra.sources.mapping import TransactionMapping, parse_mapping
from infra.sources.shipped import shipped_mappings
from ml import inference
from schema_registry.contracts import PARTITIONS, contracts

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
SCREEN_LINES = 45  # what a person sees of the README before scrolling
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text(page: Path) -> str:
    """A page's text."""
    return page.read_text("utf-8")


def doc(name: str) -> str:
    """The text of a page of the docs."""
    return text(DOCS / name)


@each_page
def test_no_figure_is_left_open(page: Path) -> None:
    left = sorted(set(re.findall(r"@@[A-Z]+:[^@\s]*@@|@@FIGURE", text(page))))
    assert not left, f"{page.name}: measured figures to fill in: {', '.join(left)}"


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text(page))]
    missing = [t for t in targets if t and "://" not in t and not (page.parent / t).exists()]
    assert not missing


@each_page
def test_every_variable_given_to_make_exists(page: Path) -> None:
    known = set(re.findall(r"^([A-Z]+) \?=", text(ROOT / "Makefile"), re.MULTILINE))
    calls = re.findall(r"(?:^\$ |`)make ([^`\n#]+)", text(page), re.MULTILINE)
    given = {name for call in calls for name in re.findall(r"\b([A-Z]+)=", call)}
    assert given <= known


@each_page
def test_every_setting_that_is_named_exists(page: Path) -> None:
    known = {SECRETS_ARN_VARIABLE, SECRETS_FILE_VARIABLE, SECRETS_ARN_VARIABLE}
    for name, field in Settings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        known |= {f"TIDEMARK_{name}__{part}".upper() for part in inner} if inner else {f"TIDEMARK_{name}".upper()}
        known |= {f"TIDEMARK_{name}__…".upper()} if inner else set()  # all of a group
    named = set(re.findall(r"\bTIDEMARK_[A-Z0-9_]*(?:[A-Z0-9]|__…)", text(page)))
    assert named <= known


@each_page
def test_files_named_in_code_exist(page: Path) -> None:
    packages = "domain|schema_registry|graph|projections|ml|infra|tests|docs"
    named = re.findall(rf"`((?:{packages})/[\w./-]*)`", text(page))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_the_readme_opens_with_what_it_is_the_flow_and_the_two_commands() -> None:
    screen = "\n".join(text(README).splitlines()[:SCREEN_LINES])
    for expected in ("EVENT LOG", "$ make demo", "$ make test", "make down", "make clean"):
        assert expected in screen


def test_each_picture_says_whether_its_data_is_real_or_simulated() -> None:
    for picture, caption in re.findall(r"^!\[[^\]]*\]\(([^)]+)\)\n(.*)", text(README), re.MULTILINE):
        assert re.match(r"\*(Real|Simulated) data:", caption), picture


def test_the_map_names_every_package() -> None:
    for package in ("domain", "schema_registry", "graph", "projections", "ml", "infra", "tests", "docs"):
        assert f"| `{package}/` |" in text(README)


def test_events_page_has_every_contract_under_its_topic() -> None:
    parts = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", doc("events.md"), re.MULTILINE | re.DOTALL))
    for contract in contracts().values():
        fitting = [body for title, body in parts.items() if contract.topic in title.split(", ")]
        assert len(fitting) == 1, f"expected one part for {contract.topic}"
        assert f"`{contract.name}`" in fitting[0], f"{contract.name} is missing under {contract.topic}"


def test_events_page_says_how_many_partitions() -> None:
    assert sorted(topic for topic, count in PARTITIONS.items() if count == 1) == ["command-results", "commands"]
    assert "six partitions, `commands` and `command-results` one" in doc("events.md")


def test_changelog_counts_the_contracts() -> None:
    assert f"{len(contracts())} Avro contracts" in doc("CHANGELOG.md")


def test_mappings_page_names_every_shipped_mapping_and_its_example_is_one() -> None:
    page = doc("mappings.md")
    assert not [name for name in shipped_mappings() if f"`{name}`" not in page]
    examples = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert examples
    assert all(isinstance(parse_mapping(example, "the docs' example"), TransactionMapping) for example in examples)


def test_operations_page_has_every_exit_status() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", doc("operations.md"), re.MULTILINE)
    assert {int(status): meaning for status, meaning in rows} == exits.MEANINGS


def test_architecture_page_names_every_worker() -> None:
    assert not [name for name in WORKERS if f"`{name}`" not in doc("architecture.md")]


def test_investigation_page_names_every_question() -> None:
    assert not [name for name in INVESTIGATIONS if f"`{name}`" not in doc("investigation.md")]


def test_endpoint_page_states_the_limits_of_the_code() -> None:
    page = doc("endpoint.md")
    assert f"specification {inference.SPEC_VERSION}\n" in page
    assert f"At most {inference.MOST_ROWS:,} rows and {inference.MOST_BODY_BYTES >> 20} MiB" in page
    assert f"at most {inference.MOST_MISTAKES}." in page
    embeddings = sum(name.startswith("own_embedding_") for name in inference.ROW_NAMES)
    features = inference.ROW_WIDTH - 2 * embeddings
    assert f"{features} features, the wallet's own embedding ({embeddings} numbers)" in page


def test_endpoint_page_names_every_error_code() -> None:
    source = text(ROOT / "ml" / "inference.py")
    codes = set(re.findall(r'RequestError\(\s*"(\w+)"', source))
    assert codes
    assert not [code for code in codes if f"`{code}`" not in doc("endpoint.md")]


def test_the_page_on_projections_shows_the_example_that_the_tests_run() -> None:
    page = doc("adding-a-projection.md")
    for name, language in (("net_flow.py", "python"), ("pyproject.toml", "toml")):
        assert f"```{language}\n{text(DOCS / 'examples' / 'net-flow' / name)}```\n" in page, name
    (shown,) = re.findall(r"^class TestNetFlow.*?(?=^```)", page, re.MULTILINE | re.DOTALL)
    assert shown in text(ROOT / "tests" / "contracts" / "test_net_flow.py")


def test_the_producer_has_fifteen_lines() -> None:
    block = re.findall(r"^```python\n(.*?)^```", doc("producing.md"), re.MULTILINE | re.DOTALL)
    assert [len(code.splitlines()) for code in block] == [15]
