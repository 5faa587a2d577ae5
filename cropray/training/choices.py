"""What a configuration may choose of the training; apart from it, so that a job file is read without loading torch."""

from typing import Literal

ClassWeighting = Literal["none", "sqrt_inverse"]
Monitor = Literal["val_loss", "val_macro_f1"]
Schedule = Literal["constant", "cosine"]
