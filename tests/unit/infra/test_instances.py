from __future__ import annotations

import pytest

from domain.errors import InvalidValue
from infra.instances import demand_instance, process_name, worker_of


@pytest.mark.parametrize(("worker", "instance"), [("warehouse", 1), ("warehouse", 2), ("net-flow", 12), ("command-handler", 99)])
def test_a_process_is_named_after_its_worker_and_found_again(worker: str, instance: int) -> None:
    assert worker_of(process_name(worker, instance)) == (worker, instance)


def test_the_first_process_is_called_like_its_worker() -> None:
    assert process_name("graph", 1) == "graph"


@pytest.mark.parametrize("name", ["graph.0", "graph.100", "graph.x", "endpoint:7", ""])
def test_any_other_name_is_its_own(name: str) -> None:
    assert worker_of(name) == (name, 1)


@pytest.mark.parametrize(("worker", "instance"), [("graph", 0), ("graph", 100), ("notifier", 2)])
def test_what_a_worker_cannot_have_is_refused(worker: str, instance: int) -> None:
    with pytest.raises(InvalidValue, match="instance: "):
        demand_instance(worker, instance)


def test_the_notifier_has_one() -> None:
    demand_instance("notifier", 1)
