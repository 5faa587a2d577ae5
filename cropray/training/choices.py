"""What a configuration may choose of the training; apart from it, so that a job file is read without loading torch."""

from typing import Literal

Monitor = Literal["val_loss", "val_macro_f1"]
