"""Airflow: the day of the batch and stream road as a DAG. Its tasks are Tidemark's own commands; nothing here does their work."""
