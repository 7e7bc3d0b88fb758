"""The definitions for other tools say nothing that is not there: metrics that our code exports, columns that the warehouse has.

None of these tools runs here. What can be held against a schema is: QuickSight's requests by AWS' own service model.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import botocore.session
import pytest
from botocore.validate import ParamValidator
from sqlglot import parse_one

from infra.dashboards import cloudwatch
from infra.lambdas.functions import FUNCTIONS
from infra.lambdas.kinesis_ingestion import IngestionReport
from infra.metrics import WorkerMetrics
from infra.notifier import QUEUE, TOPIC
from infra.settings import KinesisSettings
from projections.runner import Flushed
from projections.warehouse.tables import warehouse_metadata
from projections.warehouse.views import MATERIALISED_VIEWS, views

FOLDER = Path(cloudwatch.__file__).parent
LOOKER = sorted((FOLDER / "looker").glob("*.view.lkml"))


def loaded(name: str) -> Any:
    return json.loads((FOLDER / name).read_text("utf-8"))


@pytest.fixture(scope="module")
def columns() -> dict[str, set[str]]:
    """Table or view → its columns, of views as their SQL names them."""
    found = {name: set(table.columns.keys()) for name, table in warehouse_metadata().tables.items()}
    queries = {name: query for name, (query, _) in MATERIALISED_VIEWS.items()} | views("postgresql")
    for name, query in queries.items():
        for one in parse_one(query, read="postgres").selects:
            if one.alias_or_name != "*":
                found.setdefault(name, set()).add(one.alias_or_name)
            else:
                found.setdefault(name, set()).update(found["fact_transaction"])
    return found


class TestGrafana:
    @pytest.fixture(scope="class")
    def exported(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        """What a worker that has flushed once says to Prometheus."""
        folder = tmp_path_factory.mktemp("workers")
        metrics = WorkerMetrics("warehouse", folder)
        metrics.flushed(Flushed("warehouse", 10, 1, 0.1, {("commands", 0): 11}, 0))
        port = json.loads((folder / "warehouse.json").read_text("utf-8"))["metrics_port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def test_every_metric_and_label_is_exported(self, exported: str) -> None:
        page = loaded("grafana.json")
        said = [target["expr"] for panel in page["panels"] for target in panel["targets"]]
        said += [variable["definition"] for variable in page["templating"]["list"] if variable["type"] == "query"]
        named = {name for text in said for name in re.findall(r"\btidemark_\w+", text)}
        ours = set(re.findall(r"^(tidemark_\w+)", exported, re.MULTILINE))
        assert len(named) >= 6 and named <= ours
        labels = {label for text in said for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(", ")}
        assert labels <= set(re.findall(r"[{,](\w+)=", exported))

    def test_it_has_what_an_import_needs(self) -> None:
        page = loaded("grafana.json")
        assert {"title", "uid", "schemaVersion", "panels", "templating", "time", "version", "timezone"} <= set(page)
        assert len(page["uid"]) <= 40 and page["schemaVersion"] >= 36 and "id" not in page, "an id would be of another server"
        ids = [panel["id"] for panel in page["panels"]]
        assert len(ids) == len(set(ids)) >= 8
        known = {variable["name"] for variable in page["templating"]["list"]}
        used = set(re.findall(r"\$\{?(?!__)([a-z]\w*)", json.dumps(page)))
        assert used == known == {"datasource", "worker"}
        taken: set[tuple[int, int]] = set()
        for panel in page["panels"]:
            assert {"type", "title", "gridPos", "datasource", "targets", "fieldConfig"} <= set(panel)
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken and at["x"] + at["w"] <= 24, "panels lie on one another"
            taken |= cells


class TestCloudWatch:
    def test_the_file_is_what_the_templates_say(self) -> None:
        assert cloudwatch.FILE.read_text("utf-8") == cloudwatch.text(), "run `python -m infra.dashboards.cloudwatch` and commit the file"

    def test_every_metric_of_ours_is_emitted_and_every_name_is_the_settings(self) -> None:
        emitted = json.loads(IngestionReport().line(0.0, 0))
        (said,) = emitted["_aws"]["CloudWatchMetrics"]
        names = KinesisSettings()
        known = {*FUNCTIONS, names.stream, names.landing, names.dead_letters, names.failures, TOPIC, f"{QUEUE}-unread", "tidemark"}
        metrics = [metric for widget in loaded("cloudwatch.json")["widgets"] for metric in widget["properties"]["metrics"]]
        ours = [metric for metric in metrics if isinstance(metric[0], str) and metric[0] == said["Namespace"]]
        assert ours and {metric[1] for metric in ours} <= {metric["Name"] for metric in said["Metrics"]}
        assert {metric[2] for metric in ours} == {said["Dimensions"][0][0]}
        assert {metric[3] for metric in metrics if len(metric) > 3 and isinstance(metric[0], str)} <= known

    def test_widgets_do_not_lie_on_one_another(self) -> None:
        taken: set[tuple[int, int]] = set()
        for widget in loaded("cloudwatch.json")["widgets"]:
            x, y, w, h = (widget[name] for name in ("x", "y", "width", "height"))
            cells = {(i, j) for i in range(x, x + w) for j in range(y, y + h)}
            assert x + w <= 24 and not cells & taken
            taken |= cells

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ({"Fn::Sub": "${AWS::Region}/${S}/${P}"}, "us-east-1/stream/3"),
            ({"Fn::Sub": ["${a} ${b}", {"a": {"Ref": "S"}, "b": "x"}]}, "stream x"),
            ("plain", "plain"),
        ],
    )
    def test_variables_are_filled_from_the_template(self, value: Any, said: str) -> None:
        template = {"Resources": {"S": {"Properties": {"StreamName": "stream"}}}, "Parameters": {"P": {"Type": "Number", "Default": 3}}}
        assert cloudwatch._filled(value, template) == said

    def test_a_resource_without_a_name_is_refused(self) -> None:
        with pytest.raises(ValueError, match="expected a name for Bucket"):
            cloudwatch._filled({"Fn::Sub": "${Bucket}"}, {"Resources": {"Bucket": {"Properties": {}}}})


class TestQuickSight:
    def test_aws_own_model_takes_the_requests(self) -> None:
        model = botocore.session.get_session().get_service_model("quicksight")
        requests = [("CreateDataSet", one) for one in loaded("quicksight_data_sets.json")]
        for operation, request in [*requests, ("CreateDashboard", loaded("quicksight_dashboard.json"))]:
            report = ParamValidator().validate(request, model.operation_model(operation).input_shape)
            assert not report.has_errors(), report.generate_report()

    def test_data_sets_read_columns_that_the_warehouse_has(self, columns: dict[str, set[str]]) -> None:
        for one in loaded("quicksight_data_sets.json"):
            (table,) = one["PhysicalTableMap"].values()
            relation = table["RelationalTable"]
            assert relation["Schema"] == "warehouse"
            assert {column["Name"] for column in relation["InputColumns"]} <= columns[relation["Name"]]

    def test_visuals_use_columns_of_their_data_sets_and_each_id_once(self) -> None:
        page = loaded("quicksight_dashboard.json")["Definition"]
        by_arn = {one["DataSetId"]: one for one in loaded("quicksight_data_sets.json")}
        known = {}
        for declared in page["DataSetIdentifierDeclarations"]:
            (table,) = by_arn[declared["DataSetArn"].rpartition("/")[2]]["PhysicalTableMap"].values()
            known[declared["Identifier"]] = {column["Name"] for column in table["RelationalTable"]["InputColumns"]}
        used = [one for one in walked(page["Sheets"]) if "ColumnName" in one]
        assert used and all(one["ColumnName"] in known[one["DataSetIdentifier"]] for one in used)
        fields = [one["FieldId"] for one in walked(page["Sheets"]) if "FieldId" in one and "Column" in one]
        assert len(fields) == len(set(fields))
        assert {one["FieldId"] for one in walked(page["Sheets"]) if "FieldId" in one} == set(fields)


class TestLooker:
    @pytest.mark.parametrize("file", LOOKER, ids=lambda path: path.name)
    def test_views_read_columns_that_the_warehouse_has(self, file: Path, columns: dict[str, set[str]]) -> None:
        text = file.read_text("utf-8")
        (table,) = re.findall(r"sql_table_name: warehouse\.(\w+) ;;", text)
        used = set(re.findall(r"\$\{TABLE\}\.(\w+)", text))
        assert used and used <= columns[table]
        own = {name for name in re.findall(r"\$\{(\w+)\}", text) if name != "TABLE"}
        assert own <= set(re.findall(r"(?:dimension|measure): (\w+) \{", text))

    @pytest.mark.parametrize("file", sorted((FOLDER / "looker").glob("*.lkml")), ids=lambda path: path.name)
    def test_blocks_are_closed_and_sql_ends(self, file: Path) -> None:
        text = re.sub(r'"[^"]*"|#.*', "", file.read_text("utf-8"))
        depth = 0
        for line in text.splitlines():
            if line.strip().startswith("sql"):
                assert line.endswith(" ;;"), line
                continue
            depth += line.count("{") - line.count("}")
            assert depth >= 0
        assert depth == 0

    def test_the_model_joins_fields_of_its_views(self) -> None:
        model = (FOLDER / "looker" / "tidemark.model.lkml").read_text("utf-8")
        fields = {name.name.partition(".")[0]: name.read_text("utf-8") for name in LOOKER}
        for view, field in [*re.findall(r"\$\{(\w+)\.(\w+)\}", model), *re.findall(r"(\w+)\.(\w+): \"", model)]:
            assert re.search(rf"(dimension|measure): {field} \{{|dimension_group: {field.rpartition('_')[0]} \{{", fields[view])
        assert set(re.findall(r"^(?:  join|explore): (\w+) \{", model, re.MULTILINE)) == set(fields)


class TestTableau:
    @pytest.fixture(scope="class")
    def book(self) -> ElementTree.Element:
        return ElementTree.parse(FOLDER / "streaming_metrics.twb").getroot()

    def test_no_user_and_no_password_stands_in_it(self, book: ElementTree.Element) -> None:
        connections = [one for one in book.iter("connection") if one.get("class") == "postgres"]
        assert connections and all(one.get("username") == "" and "password" not in one.attrib for one in connections)

    def test_sources_read_columns_that_the_warehouse_has(self, book: ElementTree.Element, columns: dict[str, set[str]]) -> None:
        for source in book.findall("datasources/datasource"):
            (relation,) = source.iter("relation")
            match = re.fullmatch(r"\[warehouse\]\.\[(\w+)\]", str(relation.get("table")))
            assert match is not None
            remote = {one.findtext("remote-name") for one in source.iter("metadata-record")}
            assert remote and remote <= columns[match[1]]
            assert {str(one.get("name")).strip("[]") for one in source.findall("column")} == remote

    def test_sheets_use_fields_that_they_declare_of_sources_that_are_there(self, book: ElementTree.Element) -> None:
        sources = {
            str(one.get("name")): {column.get("name") for column in one.findall("column")} for one in book.findall("datasources/datasource")
        }
        declared: dict[str, set[str | None]] = defaultdict(set)
        for sheet in book.findall("worksheets/worksheet"):
            for dependency in sheet.iter("datasource-dependencies"):
                source = str(dependency.get("datasource"))
                assert {one.get("name") for one in dependency.findall("column")} <= sources[source]
                assert {one.get("column") for one in dependency.findall("column-instance")} <= sources[source]
                declared[source] |= {one.get("name") for one in dependency.findall("column-instance")}
            shelves = "".join([sheet.findtext("table/rows") or "", sheet.findtext("table/cols") or ""])
            used = re.findall(r"\[([\w.]+)\]\.(\[[\w:]+\])", shelves)
            assert used and all(field in declared[source] for source, field in used)

    def test_the_dashboard_shows_every_sheet(self, book: ElementTree.Element) -> None:
        (dashboard,) = book.findall("dashboards/dashboard")
        sheets = {one.get("name") for one in book.findall("worksheets/worksheet")}
        assert dashboard.get("name") == "streaming_metrics"
        assert {zone.get("name") for zone in dashboard.iter("zone") if zone.get("name")} == sheets
        assert {one.get("name") for one in book.findall("windows/window")} == {*sheets, "streaming_metrics"}


def walked(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a JSON value."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from walked(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walked(inner)
