"""Datasets: pixel tables, tile shards and labelled points in Parquet.

Comes in: composites and labels, or a table of points. Goes out: shards with a manifest, folds, and blocks for
training. May be added: a column (`schema`), which needs a new version of the schema.
"""
