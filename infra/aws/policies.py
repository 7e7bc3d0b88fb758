"""The policies of the templates as IAM's own JSON, for whoever makes roles by another tool.

`python -m infra.aws.policies` writes policies/*.json; the templates are the only source. What CloudFormation would fill in stands as
`${Name}`: a parameter, a resource, or an attribute of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cfnlint.decode import decode

TEMPLATES = Path(__file__).parent
POLICIES = TEMPLATES / "policies"
Template = Mapping[str, Any]
Document = dict[str, Any]
_VARIABLE = re.compile(r"\$\{([A-Za-z0-9:.]+)\}")


def template(name: str) -> Template:
    """A template of this folder, its short forms (`!Ref`) written out (`{"Ref": …}`).

    Args:
        name: without `.yaml`.

    Raises:
        FileNotFoundError: there is none.
    """
    path = TEMPLATES / f"{name}.yaml"
    if not path.is_file():
        raise FileNotFoundError(path)
    found: Template | None
    found, mistakes = decode(str(path))
    assert found is not None, mistakes
    return found


def templates() -> list[str]:
    """Their names."""
    return sorted(path.stem for path in TEMPLATES.glob("*.yaml"))


def policies(name: str) -> dict[str, Document]:
    """What each role of a template may do, by its logical name: by managed policies of the same template, then by its own."""
    resources = template(name)["Resources"]
    found = {}
    for role, resource in resources.items():
        if resource["Type"] == "AWS::IAM::Role":
            properties = resource["Properties"]
            shared = [resources[one["Ref"]]["Properties"]["PolicyDocument"] for one in properties.get("ManagedPolicyArns", ())]
            own = [one["PolicyDocument"] for one in properties.get("Policies", ())]
            statements = [filled_in(statement) for document in (*shared, *own) for statement in document["Statement"]]
            found[role] = {"Version": "2012-10-17", "Statement": statements}
    return found


def filled_in(value: Any, values: Mapping[str, str] | None = None) -> Any:
    """A piece of a template with its functions carried out.

    Args:
        values: what stands for parameters (`Bucket`), resources (`Stream`), attributes (`Stream.Arn`) and `AWS::Region` and the like;
            what is missing stays as `${Name}`.

    Raises:
        ValueError: a function that policies of ours do not use.
    """
    if isinstance(value, list):
        return [filled_in(item, values) for item in value]
    if not isinstance(value, dict):
        return _replaced(value, values or {}) if isinstance(value, str) else value
    if len(value) == 1:
        ((function, argument),) = value.items()
        if function == "Ref":
            return _replaced(f"${{{argument}}}", values or {})
        if function == "Fn::GetAtt":
            return _replaced(f"${{{'.'.join(argument)}}}", values or {})
        if function == "Fn::Sub" and isinstance(argument, str):
            return _replaced(argument, values or {})
        if function.startswith("Fn::"):
            raise ValueError(f"expected Ref, Fn::GetAtt or Fn::Sub of one text, found {function}: {argument}")
    return {key: filled_in(item, values) for key, item in value.items()}


def files() -> Iterator[tuple[Path, str]]:
    """Each policy as a file: its path and its text."""
    for name in templates():
        for role, document in policies(name).items():
            yield POLICIES / f"{name}.{role}.json", json.dumps(document, indent=2) + "\n"


def main() -> None:
    """Write every file anew; what belongs to no role any more goes."""
    POLICIES.mkdir(exist_ok=True)
    for path in POLICIES.glob("*.json"):
        path.unlink()
    for path, text in files():
        path.write_text(text, "utf-8")


def _replaced(text: str, values: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: values.get(found[1], found[0]), text)


if __name__ == "__main__":
    main()
