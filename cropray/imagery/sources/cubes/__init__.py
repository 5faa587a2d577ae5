"""Ready cubes from GeoTIFFs and VRTs, on a disk or in object storage: one's own composites, annual embeddings.

A file holds the job's cube with a band for each band and step, found by their descriptions: `B02_01 … B08_12`, in any
order; of a cube with one step `A00 … A63` will do. It lies in the zone's system with its pixels in line with the zone's,
and covers all of it. Bands of uint16 hold stored numbers as composites do. Other numbers, and those of bands with scale
and offset tags, are values in the band's unit, and are stored by the affine of the cube's band.
"""

from cropray.imagery.sources.cubes.settings import CubesSettings
from cropray.imagery.sources.cubes.source import CubeFiles

__all__ = ["CubeFiles", "CubesSettings"]
