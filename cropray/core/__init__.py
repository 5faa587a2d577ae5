"""What everything else is made of: values and rules without disk, network or cluster.

Comes in: numbers and texts that others have read. Goes out: cubes, grids, legends, folds, features, scores, settings
and keys. May be added: a feature (`features.FEATURES`), a score (`metrics.METRICS`) or a sensor (`sensors.SENSORS`),
by one entry.
"""
