"""The stages: what `cropray STAGE CONFIG` and `ray_jobs/STAGE.py` run.

Comes in: a job and its workspace. Goes out: the artefacts of the stage, each whole and with its stamp. May be added:
a stage, as a module with `run(job, progress)` and a line in `stage.STAGES`.
"""
