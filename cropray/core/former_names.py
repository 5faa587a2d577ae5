"""Modules under the names that they had before: scripts that import them go on, and are told the new name."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

FORMER: Final = {
    "cropray.errors": "cropray.core.errors",
    "cropray.grid": "cropray.core.grid",
    "cropray.legend": "cropray.core.legend",
    "cropray.storage": "cropray.io.storage",
    "cropray.workspace": "cropray.io.workspace",
    "cropray.zones": "cropray.io.zones",
    "cropray.imagery.files": "cropray.imagery.sources.files.scenes",
    "cropray.imagery.stac": "cropray.imagery.sources.stac.scenes",
    "cropray.imagery.stac_items": "cropray.imagery.sources.stac.items",
    "cropray.imagery.stac_settings": "cropray.imagery.sources.stac.settings",
}
"""Former name → the module's name now."""


class FormerNames(MetaPathFinder, Loader):
    """Finds a module under its former name; it stays one module, whatever name it is imported by."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  importlib's interface
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Of a former name; None: it is none."""
        return ModuleSpec(fullname, self) if fullname in FORMER else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of today in the place of the one that importlib made."""
        name = module.__name__
        warnings.warn(f"module '{name}' is now '{FORMER[name]}'", DeprecationWarning, stacklevel=2)
        sys.modules[name] = importlib.import_module(FORMER[name])
