"""What the stack decides before anything runs: which servers are ours, what the settings become, how it explains."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.settings import AwsSettings, KafkaSettings, S3Settings, Settings
from infra.stack import PartDown, Stack, StackError, clean_all, down_all
from infra.stack.__main__ import main
from infra.stack.part import SERVERS
from infra.stack.state import PartStatus
from tests.conftest import bare_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return bare_settings(tmp_path / ".tidemark", "demo")


def test_every_server_is_ours_where_the_settings_give_none(settings: Settings) -> None:
    assert Stack.of(settings).local_parts() == SERVERS


def test_a_server_of_the_users_is_not_started_and_its_settings_stay(settings: Settings) -> None:
    own = settings.model_copy(update={"kafka": KafkaSettings(bootstrap="theirs:9092")})
    stack = Stack.of(own)
    assert "kafka" not in stack.local_parts()
    assert stack.settings().kafka.bootstrap == "theirs:9092"
    assert stack.settings().registry.url == stack.addresses().registry


def test_aws_itself_is_the_user_s_and_so_is_its_endpoint(settings: Settings) -> None:
    own = settings.model_copy(update={"aws": AwsSettings(endpoint_url="aws"), "s3": S3Settings(endpoint_url="aws")})
    stack = Stack.of(own)
    assert not {"aws", "s3"} & set(stack.local_parts())
    assert stack.settings().endpoint.url is None
    # A double of the user's has no endpoint of SageMaker's: the one that `tidemark deploy` serves is here.
    theirs = Stack.of(settings.model_copy(update={"aws": AwsSettings(endpoint_url="http://theirs:5000")}))
    assert str(theirs.settings().endpoint.url).startswith("http://127.0.0.1:")


def test_the_filled_settings_name_this_stack_and_every_address(settings: Settings) -> None:
    filled = Stack.of(settings).settings()
    assert filled.stack_dir == settings.stack_dir
    assert filled.kafka.bootstrap
    assert filled.warehouse.dsn
    assert filled.neo4j.password
    assert Stack.of(settings).settings().neo4j.password == filled.neo4j.password


def test_two_stacks_share_no_port_and_no_secret(settings: Settings) -> None:
    one = Stack.of(settings).addresses()
    other = Stack.of(settings.model_copy(update={"stack": "other"})).addresses()
    assert one.kafka != other.kafka
    assert one.postgres_dsn != other.postgres_dsn


def test_an_unknown_part_is_refused_before_anything_starts(settings: Settings) -> None:
    stack = Stack.of(settings)
    with pytest.raises(StackError, match="zookeeper"):
        stack.up(["zookeeper"])
    assert not stack.is_up()


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        pytest.param(None, "kafka is not running: start it with `tidemark up`", id="not running"),
        pytest.param(PartStatus(state="ready", is_ready=True), "kafka is ready", id="ready"),
        pytest.param(PartStatus(state="starting", detail="refused"), "refused; see", id="not answering"),
        pytest.param(PartStatus(last_exit="signal 9", restarts=2), "2 restarts): it ended with signal 9", id="ended"),
    ],
)
def test_a_part_is_explained_in_one_sentence(status: PartStatus | None, sentence: str, settings: Settings) -> None:
    assert sentence in Stack.of(settings).explain("kafka", status)


def test_a_part_that_does_not_run_cannot_be_killed(settings: Settings) -> None:
    with pytest.raises(PartDown, match="not running"):
        Stack.of(settings).kill("kafka")


def test_stopping_where_nothing_runs_changes_nothing(tmp_path: Path) -> None:
    assert Stack.of(bare_settings(tmp_path / "none")).down() is False
    assert down_all(tmp_path / "none") == []
    assert clean_all(tmp_path / "none") is False
    assert not (tmp_path / "none").exists()


def test_clean_removes_the_state_after_stopping(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    stack = Stack.of(settings)
    stack.up(["guides"], is_tethered=True)
    assert main(["clean", str(settings.state_dir)]) == 0
    assert not settings.state_dir.exists()
    assert "Stopped: demo." in capsys.readouterr().out
    assert main(["down", str(settings.state_dir)]) == 0
    assert "Nothing runs." in capsys.readouterr().out
