"""What a job file may say about any network's training; read without loading torch and Ray.

What is chosen by name (`loss`, `sampler`, `optimizer`, `schedule`, `augment`, `net`) is a name, or a mapping with that name
and settings of the entry: `loss: {name: focal, gamma: 1.5}`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from cropray.cluster.resources import GB, Need
from cropray.core.cube import STUDY_CUBE
from cropray.core.registry import NAME, Choice, Registry, name_of, nearest, options_of
from cropray.training.choices import ValidationScore
from cropray.training.deep.augment import AUGMENTATIONS, NONE, Augment, chosen
from cropray.training.deep.losses import LOSSES
from cropray.training.deep.optim import OPTIMIZERS, SCHEDULES
from cropray.training.deep.samplers import SAMPLERS
from cropray.training.family import RESOURCES, FamilySettings
from cropray.training.weights import ClassWeighting

FREE: Final = frozenset(
    {"learning_rate", "dropout", "patience", "monitor", "schedule", "weight_decay", "class_weighting"}
)
"""Fields of networks that change no fit's cost."""
_SIZES: Final = {
    "n_classes": 2,
    "n_months": STUDY_CUBE.n_steps,
    "n_bands": STUDY_CUBE.n_bands,
}  # any: the data's own come with a fit


def checked(entry: type, choice: Choice, given: Mapping[str, Any]) -> Choice:
    """A choice with its settings read as their types.

    Args:
        entry: the class of the choice, or of its settings.
        choice: from a job file.
        given: fields of the class that are not the choice's to give.

    Raises:
        ValueError: a setting is not known, or refused.
    """
    name, options = name_of(choice), options_of(choice)
    fields = dataclasses.fields(entry) if dataclasses.is_dataclass(entry) else ()
    known = [field.name for field in fields if field.name not in given]
    for option in options.keys() - set(known):
        raise ValueError(f"'{name}' has no setting '{option}'; {nearest(option, known) if known else 'it has none'}")
    if not options:
        return name
    try:
        made: Any = TypeAdapter(entry).validate_python({**given, **options})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (name, *first["loc"])))
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
    return {NAME: name, **{option: getattr(made, option) for option in options}}


def _one_of(registry: Registry[Any], choice: Choice) -> Choice:
    return checked(registry.entry(choice), choice, {})


def _augment(value: Augment) -> bool | Choice | tuple[Choice, ...]:
    if isinstance(value, bool):
        return value
    if isinstance(value, str | dict) and name_of(value) == NONE:
        return checked(object, value, {})
    each = tuple(_one_of(AUGMENTATIONS, choice) for choice in chosen(value))
    names = [name_of(choice) for choice in each]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} stand twice in the list; name each change once")
    return each if isinstance(value, tuple) else each[0]


def _choice(registry: Registry[Any]) -> Callable[[Choice], Choice]:
    return partial(_one_of, registry)


_Choice = str | dict[str, Any]
LossChoice = Annotated[_Choice, AfterValidator(_choice(LOSSES))]
SamplerChoice = Annotated[_Choice, AfterValidator(_choice(SAMPLERS))]
OptimizerChoice = Annotated[_Choice, AfterValidator(_choice(OPTIMIZERS))]
ScheduleChoice = Annotated[_Choice, AfterValidator(_choice(SCHEDULES))]
AugmentChoice = Annotated[bool | _Choice | tuple[_Choice, ...], AfterValidator(_augment)]


class NetworkSettings(FamilySettings):
    """How a network is trained, and where. Fields that a family adds are its network's, where it has such."""

    has_surroundings: ClassVar[bool] = True
    """Of samples: what a network sees in training as well as in maps. False: single pixels."""
    net: _Choice = "conv_unet"
    """The network: a file of `nets/`, with settings of its own beside those below that it shares."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Step size of the optimiser, before `schedule` changes it."""
    epochs: int = Field(default=50, ge=1)
    """Most epochs of a fit, and those over which `schedule` falls. The refit takes the folds' mean best epoch, at the
    learning rates that the folds had."""
    batch_size: int = Field(default=64, ge=2)
    """Samples of a step, over all workers."""
    patience: int | None = Field(default=3, ge=1)
    """Epochs without improvement after which a fit stops, and goes back to its best one; None: never, and the last is kept."""
    monitor: ValidationScore = "val_loss"
    """What has to improve."""
    loss: LossChoice = "cross_entropy"
    """`cross_entropy` (`label_smoothing`), `focal` (`gamma`), `hierarchical` (`weights` of the legend's levels, beside the class).
    Validation is scored by the class alone."""
    sampler: SamplerChoice = "all"
    """`all` takes every sample once an epoch, `class_balanced` (`power`) draws those of seldom classes as often as others;
    `n` samples an epoch."""
    optimizer: OptimizerChoice = "adamw"
    """`adamw`, `sgd` (`momentum`)."""
    schedule: ScheduleChoice = "constant"
    """`cosine` lowers the learning rate over `epochs`: more score from few epochs. `one_cycle` (`warmup`) raises it first."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of the optimiser: with `adamw` decoupled from the gradient."""
    class_weighting: ClassWeighting = "none"
    """`sqrt_inverse` weighs classes by 1 / √(training pixels), `inverse` by 1 / (training pixels), `effective` by the
    effective number of them."""
    augment: AugmentChoice = False
    """Changes of training samples, one or a list: `dihedral` (`true`) turns and mirrors tiles; `shift` (`steps`, `share`), `scale`
    (`by`), `bands` (`by`, `offset`), `warp` (`by`, `knots`), `dropout_steps` (`share`) and `noise` (`sd`) change series."""
    n_seeds: int = Field(default=1, ge=1)
    """Networks that are trained one after the other from other seeds; the mean of their probabilities is the model's, and is
    what is scored. The learning curve and the best epoch are the means of the networks', each of which stops by itself."""
    num_workers: int = Field(default=0, ge=0)
    """Workers of one fit; 0: in the calling process, without a worker group's start-up of 15–40 s."""
    cpus_per_worker: float | None = Field(default=None, gt=0)
    """CPUs of each worker, or of the calling process, that compute; None: its share of the node, which a search counts
    (1 elsewhere). Fits that run at once share the CPUs, a refit that runs alone has all of a node. On as many CPUs a fit
    has the same bits; on more or fewer its losses differ by rounding."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory of each worker, or of the calling process, GB, also asked of Ray; None: its share of the node."""
    use_gpu: bool = False
    """One GPU per worker. Convolutions round their inputs to TF32 while training, as torch has it; kernels are the
    deterministic ones, so that a fit that goes on after a loss should end with the same bits on the same kind of GPU
    (`python -m tests.gpu` checks it). A search that was begun without GPUs repeats nothing."""
    checkpoint_every: int = Field(default=1, ge=1)
    """Epochs after which a fit's state is kept: what a lost process costs at most."""
    max_failures: int = Field(default=3, ge=0)
    """Times that a fit goes on from its last kept state after a worker group lost a worker."""

    @model_validator(mode="after")
    def _is_a_net(self) -> Self:
        """Of the family's own network nothing has to be asked, and torch not be loaded."""
        default = type(self).model_fields["net"].default
        if self.net == default:
            return self
        from cropray.nets.registry import (  # noqa: PLC0415 - torch: only where a job has another network
            NETS,
            Receptive,
            net_config,
        )

        config = NETS.entry(self.net).Config
        shared = self.architecture()
        for name in sorted(self.lacks()):
            if (value := shared[name]) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} = {value} is no setting of the network '{name_of(self.net)}': leave it out, or search "
                    f"networks that have it apart from it"
                )
        object.__setattr__(self, "net", checked(config, self.net, _SIZES))
        made = net_config(self.net, shared, _SIZES)
        if not self.has_surroundings and (reach := NETS.entry(self.net)(made).receptive()) != Receptive(0, 1):
            raise ValueError(
                f"the network '{name_of(self.net)}' looks at pixels around each (margin {reach.margin_px}, stride "
                f"{reach.stride_px}), and this family trains on single ones: take a network of single pixels, as ltae, or a "
                f"family that trains on tiles"
            )
        return self

    def architecture(self) -> dict[str, Any]:
        """The family's own settings of networks."""
        return {
            name: getattr(self, name) for name in type(self).model_fields if name not in NetworkSettings.model_fields
        }

    @property
    def cpus(self) -> float:
        """CPUs that each worker asks for."""
        return self.cpus_per_worker or 1.0

    @property
    def threads(self) -> int:
        """CPU threads of each worker."""
        return max(int(self.cpus), 1)

    def lacks(self) -> frozenset[str]:
        """Settings of the family's own network that the chosen one has not."""
        if self.net == type(self).model_fields["net"].default:
            return frozenset()
        from cropray.nets.registry import NETS  # noqa: PLC0415 - torch: only where a job has another network

        of_net = {field.name for field in dataclasses.fields(NETS.entry(self.net).Config)}
        return frozenset(self.architecture().keys() - of_net)

    def stopped_by(self) -> tuple[str, ...]:
        """See `FamilySettings.stopped_by`."""
        return () if self.patience is None else (self.monitor,)

    def need(self) -> Need:
        """What a fit asks for."""
        return Need(
            num_workers=self.num_workers,
            cpus=self.cpus,
            gpus=float(self.use_gpu),
            memory_bytes=(self.memory_gb or 0.0) * GB,
            cpu_step=0.25,
            gpu_setting="use_gpu",
            without_gpu="false",
        )

    def resources(self) -> frozenset[str]:
        """Workers and GPUs compute what one process computes."""
        return RESOURCES | {"num_workers", "use_gpu"}


def entries(settings: NetworkSettings) -> Sequence[type]:
    """Classes that a fit looks up by name."""
    from cropray.nets.registry import NETS  # noqa: PLC0415 - torch

    return (
        NETS.entry(settings.net),
        LOSSES.entry(settings.loss),
        SAMPLERS.entry(settings.sampler),
        OPTIMIZERS.entry(settings.optimizer),
        SCHEDULES.entry(settings.schedule),
        *(AUGMENTATIONS.entry(choice) for choice in chosen(settings.augment)),
    )
