"""Spark beside the engine: a stream scored by logistic regression, and the curated table built where one machine is too small.

The jobs (`infra.spark.jobs`) run in an environment of their own, by its Python, as processes that are given all they need to know; the
rest of this package runs in the main one and never imports pyspark.
"""
