"""`make bench`: each stage's rate as a ratio against a bare tool doing the same work in the same run."""
