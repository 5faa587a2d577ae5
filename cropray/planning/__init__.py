"""What a job will take: pure arithmetic over counted work and measured unit costs.

Comes in: counts of zones, samples and steps, costs measured by `commands.plan`, and a cluster. Goes out: time,
memory, disk and requests of each stage. May be added: a cost of a stage (`costs`, `estimate`).
"""
