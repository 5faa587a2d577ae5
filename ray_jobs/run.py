"""`cropray run` for `ray job submit -- python ray_jobs/run.py CONFIG.yaml [--set a.b=c]`."""

import sys

from cropray.cli import main

sys.exit(main(["run", *sys.argv[1:]]))
