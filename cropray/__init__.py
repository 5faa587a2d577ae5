"""Train crop-type classifiers from satellite image time series, distributed on Ray."""

import sys

from cropray.core.former_names import FormerNames

__version__ = "0.1.0"

sys.meta_path.append(FormerNames())
