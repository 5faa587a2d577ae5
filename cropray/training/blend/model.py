"""A mean of models in use."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from cropray.core.cube import CubeSpec
from cropray.core.errors import SchemaError
from cropray.core.legend import CropClass
from cropray.training.blend.mean import CARD_VERSION, FOLDER, KIND, combine
from cropray.training.card import CARD_FILE, load_card, naming_damage
from cropray.training.crop_model import CropModel, Probabilities, Samples
from cropray.training.family import family

_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class BlendModel:
    """A `CropModel` of several. Its samples are pixels, or tiles where a member's are."""

    loader: ClassVar[str] = "cropray.training.blend.served"

    members: tuple[CropModel, ...]
    """At least one, all of the same cube and classes."""
    card: Mapping[str, Any]
    """How they are averaged."""

    @property
    def _first(self) -> CropModel:
        """Whose samples are the model's."""
        return next((member for member in self.members if not member.columns), self.members[0])

    @property
    def cube(self) -> CubeSpec:
        """The members'."""
        return self._first.cube

    @property
    def classes(self) -> tuple[CropClass, ...]:
        """The members'."""
        return self._first.classes

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a table of samples; empty: samples are tiles."""
        return self._first.columns

    @property
    def stride_px(self) -> int:
        """Windows that suit all members."""
        return math.lcm(*(member.stride_px for member in self.members))

    @property
    def margin_px(self) -> int:
        """The widest, rounded up to the stride."""
        return math.ceil(max(member.margin_px for member in self.members) / self.stride_px) * self.stride_px

    @property
    def bytes_per_px(self) -> int:
        """One member after the other, and the probabilities of all of them, their sum, and its like."""
        own = (len(self.members) + 2) * _FLOAT_BYTES * len(self.classes)
        return max(member.bytes_per_px for member in self.members) + own

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of its samples."""
        return self._first.input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of its samples' probabilities."""
        return self._first.output_shape

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[N, T, C, H, W] uint16 → [N, K, H, W] float32."""
        return combine(self.card, [member.predict_tiles(x) for member in self.members])

    def predict_rows(self, x: Samples) -> Probabilities:
        """[N, C · T] uint16 of pixels → [N, K] float32; no member's samples may be tiles."""
        return combine(self.card, [member.predict_samples(x) for member in self.members])

    def predict_samples(self, x: Samples) -> Probabilities:
        """[N, C · T] or [N, T, C, H, W] uint16 → [N, K] or [N, K, H, W] float32."""
        return self.predict_rows(x) if self.columns else self.predict_tiles(x)


def read(folder: Path, device: str) -> BlendModel:
    """The members of a folder.

    Args:
        folder: of a refit.
        device: where members predict that can on either.

    Raises:
        ConfigError: a member's family is not known here, or torch sees no GPU.
        MissingArtefactError: there is no model.
        SchemaError: it is damaged, or of another version.
    """
    card = load_card(folder)
    with naming_damage(folder / CARD_FILE):
        found, names = (card["kind"], card["card_version"]), [member["name"] for member in card["members"]]
    if found != (KIND, CARD_VERSION):
        raise SchemaError(f"model '{folder}' is of kind and version {found}; needed: {(KIND, CARD_VERSION)}")
    members = tuple(family(name).load(folder / FOLDER / name, device) for name in names)
    if len({(member.cube, member.classes) for member in members}) != 1:
        raise SchemaError(f"the members of '{folder}' are of several cubes or classes; train it again")
    return BlendModel(members, card)
