"""`cropray search` of one kind of model, for `ray job submit -- python ray_jobs/search_cnn.py CONFIG.yaml`."""

import sys

from cropray.cli import main

sys.exit(main(["search", *sys.argv[1:], "--set", "search.models=[cnn]"]))
