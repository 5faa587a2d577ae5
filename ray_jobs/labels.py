"""`cropray labels` for `ray job submit -- python ray_jobs/labels.py CONFIG.yaml [--set a.b=c]`."""

import sys

from cropray.cli import main

sys.exit(main(["labels", *sys.argv[1:]]))
