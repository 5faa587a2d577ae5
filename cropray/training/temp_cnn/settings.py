"""What a job file may say about the network over pixels; read without loading torch and Ray."""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Field

from cropray.cluster.resources import FitSize, require_memory
from cropray.nets.choices import odd
from cropray.training.choices import ValidationScore
from cropray.training.deep.settings import AugmentChoice, LossChoice, NetworkSettings, SamplerChoice, ScheduleChoice

_NUMBER_BYTES: Final = 2
_COPIES: Final = 2  # of the rows, while they are read
_PROCESS_BYTES: Final = 1.0e9  # libraries, network, batches


class TempCnnSettings(NetworkSettings):
    """The network over pixels and how it is trained."""

    has_surroundings: ClassVar = False
    net: str | dict[str, Any] = "temp_cnn"
    """The network: a file of `nets/`, with settings of its own beside those below that it shares. A pixel has no
    surroundings here: networks that look at them are refused."""
    learning_rate: float = Field(default=2e-3, gt=0)
    epochs: int = Field(default=20, ge=1)
    """Most epochs of a fit, and those over which `schedule` goes. The refit takes the folds' mean best epoch, at the
    learning rates that the folds had."""
    batch_size: int = Field(default=64, ge=2)
    """Pixels of a step, over all workers."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without improvement after which a fit stops, and goes back to its best one. None: never, and the last epoch is kept,
    as `one_cycle` improves most at its end: what an epoch in its middle is worth is chance."""
    monitor: ValidationScore = "val_loss"
    loss: LossChoice = Field(default={"name": "cross_entropy", "label_smoothing": 0.05})
    sampler: SamplerChoice = Field(default={"name": "all", "n": 8192})
    """`all` takes every pixel as often as any other, `class_balanced` (`power`) draws those of seldom classes as often as
    others; `n` pixels an epoch, so that an epoch takes as long on a thousand pixels as on millions."""
    schedule: ScheduleChoice = "one_cycle"
    weight_decay: float = Field(default=1e-2, ge=0)
    augment: AugmentChoice = (
        {"name": "shift", "steps": 1, "share": 0.3},
        {"name": "scale", "by": 0.1},
        {"name": "dropout_steps", "share": 0.1},
        {"name": "noise", "sd": 0.1},
    )
    scaling: Literal["robust", "standard"] = "robust"
    """How numbers come to the network: less the band's median, in units of its interquartile range (`robust`), or less its mean,
    in standard deviations, which a few clouds in a table make several times what they are of fields."""
    channels: int = Field(default=32, ge=1)
    """Width of the convolutions over time."""
    kernel_size: Annotated[int, AfterValidator(odd)] = Field(default=5, ge=1)
    """Steps of time that one convolution sees; odd."""
    hidden: int = Field(default=128, ge=1)
    """Width of the dense layer over all steps."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of the activations that are set to 0 in training."""

    def architecture(self) -> dict[str, Any]:
        """See `NetworkSettings.architecture`; how numbers are scaled is not the network's."""
        return {name: value for name, value in super().architecture().items() if name != "scaling"}

    def fit_bytes(self, size: FitSize) -> float:
        """See `FamilySettings.fit_bytes`: a worker holds all pixels, since an epoch takes them in any order."""
        return size.n_samples * _COPIES * (_NUMBER_BYTES * size.n_features + 1)

    def check(self, size: FitSize) -> str:
        """See `FamilySettings.check`."""
        what = f"networks over {size.n_samples:,.0f} pixels"
        require_memory(_PROCESS_BYTES + self.fit_bytes(size), size, what, "temp_cnn", "take fewer zones")
        return ""
