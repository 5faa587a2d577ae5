"""A fit with all entries of one's own, as a job file has it."""

import tests.own_entries.net
import tests.own_entries.recipe  # noqa: F401  registers, as the line above

JOB = {
    "net": {"name": "toy_net", "width": 6, "layers": [2, 3]},
    "loss": {"name": "toy_loss", "times": "1e1"},  # as YAML reads 1e1
    "augment": ["dihedral", {"name": "toy_change", "by": 3}],
    "sampler": {"name": "toy_sampler", "share": 0.75},
    "optimizer": {"name": "toy_optimizer", "alpha": 0.8},
    "schedule": "toy_schedule",
    "dropout": 0.1,
    "epochs": 3,
    "batch_size": 4,
}
