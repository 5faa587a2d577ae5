"""`cropray report` for `ray job submit -- python ray_jobs/report.py CONFIG.yaml [--set a.b=c]`."""

import sys

from cropray.cli import main

sys.exit(main(["report", *sys.argv[1:]]))
