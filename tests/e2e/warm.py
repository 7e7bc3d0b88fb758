"""Imported by the process that victims are forked from: what each of them would load anew for half a second is there already."""

from infra.message_columns import compile_loops

compile_loops()
