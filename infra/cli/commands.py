"""Every command, in the order in which `tidemark --help` lists them."""

from __future__ import annotations

from infra.cli import log_commands as log_commands
from infra.cli import stack_commands as stack_commands
