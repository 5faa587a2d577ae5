"""What a configuration may choose of the training; apart from it, so that a job file is read without loading torch."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from cropray.core.metrics import metric_of

ClassWeighting = Literal["none", "sqrt_inverse"]
ValidationScore = Annotated[str, AfterValidator(lambda key: f"val_{metric_of(key).key}")]
"""`val_` and the key of one of `core.metrics.METRICS`."""
Schedule = Literal["constant", "cosine"]
