"""Lambda functions, the zips they are shipped in, and what runs them here as Lambda does."""
