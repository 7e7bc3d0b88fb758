"""Policies as files, and the one that the log holds: read, compared, changed."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from domain.log import NewRecord
from domain.policy import DEFAULT, Policy, PolicyError, parse_policy
from infra.composition import Composition
from infra.plain_yaml import MAX_BYTES, NotPlainYaml, plain_yaml
from schema_registry.contracts import CONTROL_EVENTS
from schema_registry.record_codec import RecordCodec

_KEY = b"policy"  # one key, so that one partition has all changes in their order


def shipped() -> tuple[str, ...]:
    """The names of the policies that come with Tidemark."""
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in files("infra").joinpath("policies").iterdir()))


def read_policy(name_or_path: str) -> Policy:
    """A policy, shipped or from a YAML file.

    Raises:
        PolicyError: neither a shipped name nor a readable file, or a policy with mistakes.
    """
    try:
        if name_or_path in shipped():
            text = files("infra").joinpath("policies", f"{name_or_path}.yaml").read_text("utf-8")
        else:
            with Path(name_or_path).open("rb") as stream:  # not more than is looked at: it may be any file
                text = stream.read(MAX_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise PolicyError([f"{name_or_path}: expected a file or one of {', '.join(shipped())} ({reason})"]) from error
    try:
        return parse_policy(plain_yaml(text))
    except NotPlainYaml as error:
        raise PolicyError([f"{name_or_path}: {error}"]) from error


def current(composition: Composition) -> Policy:
    """The policy that holds: the last one in the log, else the default.

    Raises:
        PolicyError: what the log has is none: a newer Tidemark wrote it.
    """
    found = composition.log.policy()
    return Policy.from_json(found[0]) if found is not None else DEFAULT


def change(composition: Composition, policy: Policy, actor: str) -> bool:
    """Make a policy hold from now on; false when it does already.

    Raises:
        PolicyError: the log has had another policy of this name with this version or a higher one; or somebody else has changed it
            in the same moment.
        LogError: Kafka does not take it.
    """
    text = policy.to_json()
    records = (record for name, record, *_ in composition.log.events(CONTROL_EVENTS) if name == "PolicyChanged")
    earlier = [_readable(str(record["policy"])) for record in records]  # as policies: what a text leaves out has its default
    if earlier and earlier[-1] == policy:
        return False
    # One name and version means one policy for ever: alerts are marked with it.
    highest = max((known.version for known in earlier if known is not None and known.name == policy.name), default=0)
    if policy.version < highest or (policy.version == highest and policy not in earlier):
        raise PolicyError([f"version: expected more than {highest}, which the log has of {policy.name}, found {policy.version}"])
    changed = {"policy": text, "actor": actor, "known_at": datetime.now(UTC)}
    value = RecordCodec(composition.clients.catalog).encode("PolicyChanged", changed)
    composition.producer.append([NewRecord(CONTROL_EVENTS, _KEY, value)])
    held = composition.log.policy()
    if held is None or held[0] != text:
        raise PolicyError([f"{policy.title}: somebody else has set another in the same moment; see `tidemark policy show`"])
    return True


def _readable(text: str) -> Policy | None:
    """A policy of the log; none where a newer Tidemark wrote it: it takes part in no comparison, and may be replaced."""
    try:
        return Policy.from_json(text)
    except PolicyError:
        return None
