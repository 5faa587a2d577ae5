"""A trained CNN in use."""

from typing import ClassVar, Final

from cropray.training.deep.model import TileNetworkModel

KIND: Final = "cnn"  # the family's name, in its cards


class CnnModel(TileNetworkModel):
    """A `TileNetworkModel` of this family."""

    kind: ClassVar[str] = KIND
    loader: ClassVar[str] = "cropray.training.cnn.served"
