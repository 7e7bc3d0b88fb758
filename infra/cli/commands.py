"""Every command, declared by importing its module."""

from __future__ import annotations

from infra.cli import airflow_commands as airflow_commands
from infra.cli import cards_commands as cards_commands
from infra.cli import case_commands as case_commands
from infra.cli import communities_command as communities_command
from infra.cli import dashboard_command as dashboard_command
from infra.cli import data_commands as data_commands
from infra.cli import investigate_command as investigate_command
from infra.cli import kinesis_commands as kinesis_commands
from infra.cli import log_commands as log_commands
from infra.cli import model_commands as model_commands
from infra.cli import policy_commands as policy_commands
from infra.cli import quality_command as quality_command
from infra.cli import quarantine_commands as quarantine_commands
from infra.cli import query_command as query_command
from infra.cli import replay_command as replay_command
from infra.cli import rescore_command as rescore_command
from infra.cli import resend_command as resend_command
from infra.cli import road_commands as road_commands
from infra.cli import schema_commands as schema_commands
from infra.cli import simulate_command as simulate_command
from infra.cli import spark_commands as spark_commands
from infra.cli import stack_commands as stack_commands
from infra.cli import topic_commands as topic_commands
