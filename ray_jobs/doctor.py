"""`cropray doctor` for `ray job submit -- python ray_jobs/doctor.py CONFIG.yaml [--set a.b=c]`."""

import sys

from cropray.cli import main

sys.exit(main(["doctor", *sys.argv[1:]]))
