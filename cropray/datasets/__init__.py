"""Datasets: pixel tables, tile shards and labelled points in Parquet."""
