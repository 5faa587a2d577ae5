"""What a configuration may choose of the training; apart from it, so that a job file is read without loading torch."""

from typing import Annotated

from pydantic import AfterValidator

from cropray.core.metrics import metric_of

ValidationScore = Annotated[str, AfterValidator(lambda key: f"val_{metric_of(key).key}")]
"""`val_` and the key of one of `core.metrics.METRICS`."""
