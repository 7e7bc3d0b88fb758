"""Policies as files, and the one that the log holds: read, compared, changed."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from domain.log import NewRecord
from domain.policy import DEFAULT, Policy, PolicyError, parse_policy
from infra.composition import Composition
from infra.plain_yaml import NotPlainYaml, plain_yaml
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
            text = Path(name_or_path).read_text("utf-8")
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
    text = composition.log.policy()
    return Policy.from_json(text) if text is not None else DEFAULT


def change(composition: Composition, policy: Policy, actor: str) -> bool:
    """Make a policy hold from now on; false when it does already.

    Raises:
        PolicyError: another policy of this name has this version or a higher one.
        LogError: Kafka does not take it.
    """
    now = current(composition)
    if policy == now:
        return False
    if policy.name == now.name and policy.version <= now.version:
        raise PolicyError([f"version: expected more than {now.version}, which the log has of {now.name}, found {policy.version}"])
    changed = {"policy": policy.to_json(), "actor": actor, "known_at": datetime.now(UTC)}
    value = RecordCodec(composition.clients.catalog).encode("PolicyChanged", changed)
    composition.producer.append([NewRecord(CONTROL_EVENTS, _KEY, value)])
    return True
