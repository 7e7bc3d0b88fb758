"""cloudwatch.json, for who does not deploy the templates: the dashboards that stand in `infra/aws/*.yaml`, one below the other.

`python -m infra.dashboards.cloudwatch` writes it anew after a template's dashboard has changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

TEMPLATES = Path(__file__).resolve().parents[1] / "aws"
FILE = Path(__file__).with_name("cloudwatch.json")
REGION = "us-east-1"
"""What stands where the templates say `${AWS::Region}`: put your own in with `sed`."""
_VARIABLE = re.compile(r"\$\{([\w:.]+)\}")


def body() -> dict[str, Any]:
    """The dashboard as `cloudwatch put-dashboard` takes it.

    Raises:
        ValueError: a template's dashboard names something that has no fixed name.
    """
    widgets: list[dict[str, Any]] = []
    for file in sorted(TEMPLATES.glob("*.yaml")):
        template = yaml.load(file.read_text("utf-8"), _Loader)
        for resource in template.get("Resources", {}).values():
            if resource["Type"] == "AWS::CloudWatch::Dashboard":
                below = max((widget["y"] + widget["height"] for widget in widgets), default=0)
                found = json.loads(_filled(resource["Properties"]["DashboardBody"], template))
                widgets += [{**widget, "y": widget["y"] + below} for widget in found["widgets"]]
    return {"widgets": widgets}


def text() -> str:
    """What the file holds."""
    return json.dumps(body(), indent=2) + "\n"


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's YAML: `!Sub x` is `{"Fn::Sub": x}`."""


def _short(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _short)


def _filled(value: Any, template: Mapping[str, Any]) -> str:
    """A text with what its variables name: the region, a parameter's default, a resource's own name."""
    given: Mapping[str, Any] = {}
    if isinstance(value, dict):
        value = value["Fn::Sub"]
        if isinstance(value, list):
            value, given = value
    return _VARIABLE.sub(lambda found: _named(found[1], given, template), value)


def _named(variable: str, given: Mapping[str, Any], template: Mapping[str, Any]) -> str:
    if variable == "AWS::Region":
        return REGION
    if variable in given:
        inner = given[variable]
        return _named(str(inner["Ref"]), {}, template) if isinstance(inner, dict) and "Ref" in inner else _filled(inner, template)
    properties = template.get("Resources", {}).get(variable.partition(".")[0], {}).get("Properties", {})
    names = [value for name, value in properties.items() if name.endswith("Name")]
    names += [value for name, value in template.get("Parameters", {}).get(variable, {}).items() if name == "Default"]
    if not names or not isinstance(names[0], (str, int)):
        raise ValueError(f"expected a name for {variable} in the template of a dashboard, found none")
    return str(names[0])


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
