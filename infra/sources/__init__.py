"""Sources: files and streams of anybody's transactions, mapped to commands, and the cut in time for learning."""
