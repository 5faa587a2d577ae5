"""Sentinel-2 L2A products as ESA ships them: `.SAFE` folders, and zips of them, which are read where they are.

What a product's numbers mean is said by its own metadata (`MTD_MSIL2A.xml`, and `MTD_TL.xml` of each tile): when it was
sensed and processed, where it lies, and which offset each band holds. Metadata that contradict each other are refused.

Source: ESA, Sentinel-2 Products Specification Document (PSD) 13 to 15, "Level-2A product".
"""

from cropray.imagery.sources.safe.scenes import SafeScenes
from cropray.imagery.sources.safe.settings import SafeSettings

__all__ = ["SafeScenes", "SafeSettings"]
