"""The SageMaker pipeline: SageMaker's double takes it, every name in it is defined, and its steps are commands that exist."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import typer
from moto import mock_aws

from infra.cli import commands as commands
from infra.cli.app import app
from infra.settings import SECRETS_ARN_VARIABLE, Settings
from tests.unit.infra.aws.double import client

TEXT = files("infra.aws").joinpath("retraining_pipeline.json").read_text("utf-8")
PIPELINE: dict[str, Any] = json.loads(TEXT)


def processing_steps() -> list[dict[str, Any]]:
    judge, gate = PIPELINE["Steps"]
    return [judge, *gate["Arguments"]["IfSteps"]]


def test_the_double_takes_it() -> None:
    with mock_aws():
        sagemaker = client("sagemaker")
        role = "arn:aws:iam::000000000000:role/tidemark-retraining"
        sagemaker.create_pipeline(PipelineName="tidemark-retraining", PipelineDefinition=TEXT, RoleArn=role, ClientRequestToken="t" * 32)
        assert json.loads(sagemaker.describe_pipeline(PipelineName="tidemark-retraining")["PipelineDefinition"]) == PIPELINE


def test_every_parameter_used_is_defined_and_every_one_defined_is_used() -> None:
    used = set(re.findall(r'"Parameters\.(\w+)"', TEXT))
    assert used == {parameter["Name"] for parameter in PIPELINE["Parameters"]}


def test_every_step_is_a_command_with_options_that_it_has() -> None:
    known = typer.main.get_command(app)
    for step in processing_steps():
        container = step["Arguments"]["AppSpecification"]
        assert container["ContainerEntrypoint"] == ["python", "-m", "infra.cli"], "SageMaker replaces the image's own"
        name, *options = container["ContainerArguments"]
        command = known.commands[name]  # type: ignore[attr-defined]
        names = {option for parameter in command.params for option in parameter.opts}
        assert {option for option in options if isinstance(option, str) and option.startswith("--")} <= names


def test_every_setting_is_one_of_ours_and_the_gate_reads_what_judging_writes() -> None:
    for step in processing_steps():
        for name in step["Arguments"]["Environment"]:
            if name == SECRETS_ARN_VARIABLE:
                continue
            part, _, field = name.removeprefix("TIDEMARK_").lower().partition("__")
            group = Settings.model_fields[part]
            assert not field or field in group.annotation.model_fields  # type: ignore[union-attr]
    judge, gate = PIPELINE["Steps"]
    (output,) = judge["Arguments"]["ProcessingOutputConfig"]["Outputs"]
    out = judge["Arguments"]["AppSpecification"]["ContainerArguments"][-1]
    (file,) = judge["PropertyFiles"]
    assert out == f"{output['S3Output']['LocalPath']}/{file['FilePath']}"
    (condition,) = gate["Arguments"]["Conditions"]
    read = condition["LeftValue"]["Std:JsonGet"]
    assert read["PropertyFile"]["Get"] == f"Steps.{judge['Name']}.PropertyFiles.{file['PropertyFileName']}"
    assert read["Path"] == "gate.has_passed", "as infra.retraining.RetrainResult.as_json has it"
    assert gate["Arguments"]["ElseSteps"][0]["Type"] == "Fail"
