"""The simulator: a seeded stream of transactions with planted schemes, and the truth about them apart."""
