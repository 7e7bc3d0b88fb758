"""What the business knows: values, commands, events, the wallet and case aggregates, and the event-log port.

Standard library only; no clock, no randomness, no input or output.
"""
