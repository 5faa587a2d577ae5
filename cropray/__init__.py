"""Train crop-type classifiers from satellite image time series, distributed on Ray."""

__version__ = "0.1.0"
