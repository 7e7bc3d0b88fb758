"""Replay: history from the archive once more, in a sandbox, under other policies, models, loads and planted schemes."""
