"""YAML as people write it by hand: plain values. Tags, anchors and aliases are refused, and so is a name that stands twice."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

MAX_BYTES = 1 << 20  # what people write by hand is a page; more is a mistaken path


class NotPlainYaml(ValueError):
    """Text that is not plain YAML: where, and what is wrong there."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}" if place else problem)
        self.place, self.problem = place, problem


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise NotPlainYaml(f"line {key.start_mark.line + 1}", "expected plain values, found a merge (<<)")
            if key.value in names:
                raise NotPlainYaml(f"line {key.start_mark.line + 1}", f"expected each field once, found {str(key.value)[:60]!r} again")
            names.add(key.value)
        return super().construct_mapping(node, deep)


def plain_yaml(text: str) -> Any:
    """The values in a text.

    Raises:
        NotPlainYaml: it is too long, no YAML, or more than plain values.
    """
    if len(text) > MAX_BYTES:
        raise NotPlainYaml("", f"expected at most {MAX_BYTES} characters, found {len(text)}")
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, (yaml.TagToken, yaml.AnchorToken, yaml.AliasToken)):
                word = {yaml.TagToken: "a tag", yaml.AnchorToken: "an anchor"}.get(type(token), "an alias")
                place = token.start_mark
                raise NotPlainYaml(f"line {place.line + 1}" if place is not None else "yaml", f"expected plain values, found {word}")
        return yaml.load(text, Loader=_Loader)
    except NotPlainYaml:
        raise
    except (yaml.YAMLError, RecursionError, ArithmeticError, ValueError, TypeError, AttributeError) as error:
        raise NotPlainYaml("yaml", " ".join(str(error).split())[:300]) from error
