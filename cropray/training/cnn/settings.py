"""What a job file may say about the CNN; apart from its training, so that it is read without loading torch and Ray."""

import sys
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from cropray.nets.choices import Pool
from cropray.training.deep.settings import NetworkSettings


class CnnSettings(NetworkSettings):
    """The CNN and how it is trained; the defaults are the original study's, pool aside."""

    kernel_size: Literal[3, 5] = 3
    """Steps of time that one convolution over time sees."""
    temporal_channels: int = Field(default=64, ge=1)
    """Width of the convolutions over time."""
    unet_channels: tuple[PositiveInt, ...] = Field(default=(64, 128, 256, 512, 512), min_length=1)
    """Width of each U-Net level, finest first."""
    pool: Pool = "flatten"
    """How months become one embedding: `max` (the study's), `mean`, or `flatten`, which keeps their order."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of the activations that are set to 0 in training."""

    @model_validator(mode="before")
    @classmethod
    def _threads_are_cpus(cls, raw: Any) -> Any:
        """Job files once gave the threads of a worker beside the CPUs that it asked for."""
        if not isinstance(raw, dict) or "threads" not in raw:
            return raw
        rest = {name: value for name, value in raw.items() if name != "threads"}
        read = {"cpus_per_worker": raw["threads"], **rest}
        print(
            f"cnn.threads is now cnn.cpus_per_worker: it is read as {read['cpus_per_worker']}, and as many CPUs compute; "
            f"remove cnn.threads from the job file",
            file=sys.stderr,
        )
        return read
