"""Commands of the Airflow DAG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli import exits, output
from infra.cli.app import START, group
from infra.cli.app import command as declare
from infra.cli.context import Context

airflow = group("airflow", "The day of the batch and stream road as an Airflow DAG.", START)


@declare("test", of=airflow, examples=["tidemark airflow test", "tidemark airflow test --inbox incoming --expectations warn"])
def airflow_test(
    inbox: Annotated[Path | None, typer.Option(help="Folder of files of transactions to ingest.", exists=True, file_okay=False)] = None,
    share: Annotated[float, typer.Option(min=0.05, max=0.5, help="Of the transactions, the last, that models are judged on.")] = 0.2,
    tolerance: Annotated[float, typer.Option(min=0.0, max=1.0, help="Average precision that a new model may lack.")] = 0.01,
    expectations: Annotated[str, typer.Option(help="What a broken expectation does to the run: fail or warn.")] = "fail",
) -> int:
    """Run the DAG once against this stack, by Airflow's own `dags test`: no scheduler, every task here. Installs Airflow where missing."""
    from infra.airflow.environment import airflow_environment, dags_test

    if expectations not in ("fail", "warn"):
        raise typer.BadParameter("expected fail or warn", param_hint="--expectations")
    context = Context()
    context.need("kafka", "registry", "s3", "postgres", "aws")
    settings = context.given
    log = settings.stack_dir / "logs" / "airflow.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    installed = airflow_environment(output.say)
    conf = {"inbox": str(inbox.absolute()) if inbox else "", "share": share, "tolerance": tolerance, "expectations": expectations}
    with output.errors.status("the DAG runs"):
        status = dags_test(installed, settings, conf, log)
    if status:
        output.fail(f"the run of the DAG failed; the tasks' logs are in {log}")
        return exits.FAILED
    output.result(f"[green]Every task of the DAG has succeeded, or was skipped for a reason.[/] Their logs: {output.safe(str(log))}")
    return exits.OK
