"""What runs within the Spark environment: `python -m infra.spark.jobs.<job> <spec file>`. Imports pyspark and nothing of the engine."""
