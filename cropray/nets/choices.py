"""What a configuration may choose of the network; apart from it, so that a job file is read without loading torch."""

from typing import Literal

Pool = Literal["max", "mean", "flatten"]
