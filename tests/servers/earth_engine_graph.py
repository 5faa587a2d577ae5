# ruff: noqa: A002, A006  # arguments are named as Earth Engine's functions name them
"""Evaluates Earth Engine's expression graphs with numpy, on the pixels of one request.

It knows the functions that cropray sends. An unknown one is an error, never a guess.
"""

import datetime as dt
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyproj

MAX_BYTES = 48 * 2**20  # of one request, with a mask byte for each value of a band
MAX_SIDE = 32768


class ServiceError(Exception):
    """An error that the client is told."""

    def __init__(self, code, message, status="INVALID_ARGUMENT", retry_after=None):
        super().__init__(message)
        self.code, self.status, self.retry_after = code, status, retry_after


@dataclass(frozen=True)
class Asset:
    """An image of a collection."""

    id: str
    time: dt.datetime
    crs: str
    x_min: float
    y_max: float
    bands: dict
    """name → (pixel size in units of the system, array [H, W]); 0 is masked."""

    def bounds(self):
        size, array = next(iter(self.bands.values()))
        height, width = array.shape
        return self.x_min, self.y_max - size * height, self.x_min + size * width, self.y_max


@dataclass(frozen=True)
class PixelGrid:
    """The pixels of a request."""

    crs: str
    x_min: float
    y_max: float
    size_x: float
    size_y: float
    width: int
    height: int

    @property
    def shape(self):
        return self.height, self.width

    def centres(self):
        return (
            self.x_min + (np.arange(self.width) + 0.5) * self.size_x,
            self.y_max + (np.arange(self.height) + 0.5) * self.size_y,
        )


@dataclass
class Image:
    """Bands as functions of a grid: name → (grid → (values [H, W], mask [H, W]))."""

    bands: dict
    asset: Asset | None = None
    properties: dict = field(default_factory=dict)


class Area(NamedTuple):
    """A rectangle."""

    crs: str
    bounds: tuple


def asset_image(asset):
    """An asset, read by nearest neighbour as Earth Engine does by default."""

    def reader(name):
        size, array = asset.bands[name]

        def read(grid):
            x, y = grid.centres()
            if grid.crs == asset.crs:
                x, y = x[None, :], y[:, None]
            else:
                x, y = transform(grid.crs, asset.crs, *np.meshgrid(x, y))
            cols = np.floor((x - asset.x_min) / size).astype(int)
            rows = np.floor((asset.y_max - y) / size).astype(int)
            height, width = array.shape
            inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
            values = array[np.clip(rows, 0, height - 1), np.clip(cols, 0, width - 1)]
            return values, inside & (values != 0)

        return read

    properties = {"system:index": asset.id.split("/")[-1], "system:time_start": milliseconds(asset.time)}
    return Image({name: reader(name) for name in asset.bands}, asset, properties)


def transform(source, target, x, y):
    if source == target:
        return x, y
    return pyproj.Transformer.from_crs(source, target, always_xy=True).transform(x, y)


def milliseconds(time):
    if isinstance(time, int | float):
        return int(time)
    time = dt.datetime.fromisoformat(time) if isinstance(time, str) else time
    return int(time.replace(tzinfo=time.tzinfo or dt.UTC).timestamp() * 1000)


def once(function):
    """Shared parts of a graph are computed once per grid."""
    last = []

    def call(grid):
        if not last or last[0] is not grid:
            last[:] = [grid, function(grid)]
        return last[1]

    return call


def as_image(value):
    if isinstance(value, Image):
        return value
    dtype = np.uint8 if isinstance(value, int) else np.float64
    return Image(
        {"constant": lambda grid: (np.full(grid.shape, value, dtype), np.ones(grid.shape, bool))},
    )


def each_band(image, function):
    image = as_image(image)
    bands = {n: once(lambda g, f=f: (function(f(g)[0]), f(g)[1])) for n, f in image.bands.items()}
    return Image(bands, image.asset, image.properties)


def pairwise(image1, image2, function):
    image1, image2 = as_image(image1), as_image(image2)
    others = list(image2.bands.values())
    if len(others) not in {1, len(image1.bands)}:
        raise ServiceError(400, "Image binary op: images must have the same number of bands, or one")

    def pair(first, second):
        def compute(grid):
            (a, mask_a), (b, mask_b) = first(grid), second(grid)
            return function(a, b), mask_a & mask_b

        return once(compute)

    bands = {n: pair(f, others[k if len(others) > 1 else 0]) for k, (n, f) in enumerate(image1.bands.items())}
    return Image(bands, image1.asset, image1.properties)


def select(input, bandSelectors, newNames=None):
    missing = [name for name in bandSelectors if name not in input.bands]
    if missing:
        available = list(input.bands)
        raise ServiceError(
            400, f"Image.select: Band pattern '{missing[0]}' did not match any bands. Available bands: {available}"
        )
    return Image({n: input.bands[n] for n in bandSelectors}, input.asset, input.properties)


def rename(input, names):
    return Image(dict(zip(names, input.bands.values(), strict=True)), input.asset, input.properties)


def unmask(input, value, sameFootprint=True):
    (filling,) = as_image(value).bands.values()

    def fill(band):
        def compute(grid):
            values, mask = band(grid)
            return np.where(mask, values, filling(grid)[0].astype(values.dtype)), np.ones_like(mask)

        return once(compute)

    return Image({name: fill(band) for name, band in input.bands.items()}, input.asset, input.properties)


def update_mask(image, mask):
    (covering,) = mask.bands.values()

    def cover(band):
        def compute(grid):
            values, valid = band(grid)
            cover_values, cover_valid = covering(grid)
            return values, valid & cover_valid & (cover_values > 0)

        return once(compute)

    return Image({name: cover(band) for name, band in image.bands.items()}, image.asset, image.properties)


def add_bands(dstImg, srcImg, names=None, overwrite=False):
    return Image(dstImg.bands | srcImg.bands, dstImg.asset, dstImg.properties)


def over_images(collection, function):
    """Reduces the images of a collection band by band; an empty collection has no bands, as in Earth Engine."""
    if not collection:
        return Image({})

    def reduce_band(name):
        def compute(grid):
            stack = [image.bands[name](grid) for image in collection]
            return function(np.stack([values for values, _ in stack]), np.stack([mask for _, mask in stack]))

        return once(compute)

    return Image({name: reduce_band(name) for name in collection[0].bands})


def median(values, mask):
    ordered = np.sort(np.where(mask, values.astype(np.float64), np.inf), axis=0)
    count = mask.sum(axis=0)
    rows, cols = np.indices(count.shape, sparse=True)
    lower, upper = (
        ordered[np.maximum(count - 1, 0) // 2, rows, cols],
        ordered[np.minimum(count // 2, len(values) - 1), rows, cols],
    )
    return np.where(
        count > 0, np.where(count % 2, lower, (np.where(count, lower, 0) + np.where(count, upper, 0)) / 2), 0.0
    ), count > 0


def count(values, mask):
    return mask.sum(axis=0, dtype=np.int32), mask.any(axis=0)


def mosaic(values, mask):
    """The last image is on top."""
    top, valid = values[0].copy(), mask[0].copy()
    for layer, layer_valid in zip(values[1:], mask[1:], strict=True):
        top[layer_valid] = layer[layer_valid]
        valid |= layer_valid
    return np.where(valid, top, 0), valid


def cast(dtype):
    limits = np.iinfo(dtype)
    return lambda values: np.clip(values, limits.min, limits.max).astype(dtype)


def reaches_into(leftField, rightValue):
    def test(image):
        x_min, y_min, x_max, y_max = rightValue.bounds
        corners = np.array([x_min, x_max, x_min, x_max]), np.array([y_min, y_min, y_max, y_max])
        x, y = transform(rightValue.crs, image.asset.crs, *corners)
        west, south, east, north = image.asset.bounds()
        return min(x) < east and max(x) > west and min(y) < north and max(y) > south

    return test


def polygon(coordinates, crs="EPSG:4326", **_):
    points = np.array(coordinates, float).reshape(-1, 2)
    return Area(crs, (*points.min(axis=0), *points.max(axis=0)))


class Evaluation:
    """The nodes of one expression; those that depend on no argument are computed once."""

    def __init__(self, functions, values):
        self.functions, self.values, self.known = functions, values, {}

    def follow(self, name, arguments):
        if arguments:
            return self.evaluate(self.values[name], arguments)
        if name not in self.known:
            self.known[name] = self.evaluate(self.values[name], arguments)
        return self.known[name]

    def evaluate(self, node, arguments):
        ((kind, content),) = node.items()
        kinds = {
            "constantValue": lambda: content,
            "integerValue": lambda: int(content),
            "valueReference": lambda: self.follow(content, arguments),
            "argumentReference": lambda: arguments[content],
            "arrayValue": lambda: [self.evaluate(item, arguments) for item in content.get("values", [])],
            "functionDefinitionValue": lambda: self.define(content, arguments),
            "functionInvocationValue": lambda: self.call(content, arguments),
        }
        if kind not in kinds:
            raise ServiceError(400, f"stand-in: value kind {kind!r} is not known")
        return kinds[kind]()

    def define(self, content, arguments):
        names = content["argumentNames"]
        return lambda *given: self.follow(content["body"], arguments | dict(zip(names, given, strict=True)))

    def call(self, content, arguments):
        function = self.functions.get(content["functionName"])
        if function is None:
            raise ServiceError(400, f"stand-in: function {content['functionName']!r} is not known")
        return function(**{name: self.evaluate(value, arguments) for name, value in content["arguments"].items()})


class Evaluator:
    """Expressions over a catalogue: collection id → its assets in time order."""

    def __init__(self, catalogue):
        self.catalogue = catalogue
        self.assets = {asset.id: asset for assets in catalogue.values() for asset in assets}
        self.functions: dict[str, Callable] = {
            "AggregateFeatureCollection.array": lambda collection, property: [
                i.properties[property] for i in collection
            ],
            "Collection.filter": lambda collection, filter: [image for image in collection if filter(image)],
            "DateRange": lambda start, end, timeZone=None: (milliseconds(start), milliseconds(end)),
            "Filter.dateRangeContains": lambda leftValue, rightField: (
                lambda image: leftValue[0] <= image.properties[rightField] < leftValue[1]
            ),
            "Filter.intersects": reaches_into,
            "Feature": lambda geometry, metadata=None: geometry,
            "GeometryConstructors.Polygon": polygon,
            "GeometryConstructors.Rectangle": polygon,
            "Image.add": lambda image1, image2: pairwise(image1, image2, np.add),
            "Image.addBands": add_bands,
            "Image.and": lambda image1, image2: pairwise(
                image1, image2, lambda a, b: ((a != 0) & (b != 0)).astype("u1")
            ),
            "Image.constant": as_image,
            "Image.floor": lambda value: each_band(value, np.floor),
            "Image.gte": lambda image1, image2: pairwise(image1, image2, lambda a, b: (a >= b).astype("u1")),
            "Image.load": lambda id, **_: asset_image(self.asset(id)),
            "Image.lte": lambda image1, image2: pairwise(image1, image2, lambda a, b: (a <= b).astype("u1")),
            "Image.rename": rename,
            "Image.select": select,
            "Image.toUint16": lambda value: each_band(value, cast(np.uint16)),
            "Image.toUint8": lambda value: each_band(value, cast(np.uint8)),
            "Image.unmask": unmask,
            "Image.updateMask": update_mask,
            "ImageCollection.fromImages": lambda images: images,
            "ImageCollection.load": lambda id, **_: [asset_image(asset) for asset in self.collection(id)],
            "ImageCollection.mosaic": lambda collection: over_images(collection, mosaic),
            "Collection.map": lambda collection, baseAlgorithm, dropNulls=False: [baseAlgorithm(i) for i in collection],
            "Projection": lambda crs, **_: crs,
            "reduce.count": lambda collection: over_images(collection, count),
            "reduce.median": lambda collection: over_images(collection, median),
        }

    def collection(self, name):
        if name not in self.catalogue:
            raise ServiceError(
                400,
                f"ImageCollection.load: ImageCollection asset '{name}' not found (does not exist or caller does not "
                f"have access).",
            )
        return self.catalogue[name]

    def asset(self, name):
        if name not in self.assets:
            raise ServiceError(
                400, f"Image.load: Image asset '{name}' not found (does not exist or caller does not have access)."
            )
        return self.assets[name]

    def value(self, expression):
        """The value of an expression `{"result": …, "values": {…}}`."""
        return Evaluation(self.functions, expression["values"]).follow(expression["result"], {})

    def pixels(self, body):
        """The body of a `computePixels` answer: an NPY file with one field per band."""
        if body["fileFormat"] != "NPY":
            raise ServiceError(400, f"stand-in: file format {body['fileFormat']!r} is not known")
        affine, size = body["grid"]["affineTransform"], body["grid"]["dimensions"]
        if affine.get("shearX") or affine.get("shearY"):
            raise ServiceError(400, "stand-in: sheared grids are not known")
        width, height = int(size["width"]), int(size["height"])
        if max(width, height) > MAX_SIDE:
            raise ServiceError(
                400, f"Pixel grid dimensions ({width}x{height}) must be less than or equal to {MAX_SIDE}."
            )
        corner = (
            body["grid"]["crsCode"],
            affine["translateX"],
            affine["translateY"],
            affine["scaleX"],
            affine["scaleY"],
        )
        bands = self.value(body["expression"]).bands
        one = {name: band(PixelGrid(*corner, 1, 1))[0] for name, band in bands.items()}
        n_bytes = width * height * sum(value.dtype.itemsize + 1 for value in one.values())
        if n_bytes > MAX_BYTES:
            raise ServiceError(
                400, f"Total request size ({n_bytes} bytes) must be less than or equal to {MAX_BYTES} bytes."
            )
        grid = PixelGrid(*corner, width, height)
        pixels = np.zeros(grid.shape, [(name, value.dtype) for name, value in one.items()])
        for name, band in bands.items():
            values, mask = band(grid)
            pixels[name] = np.where(mask, values, 0)
        file = io.BytesIO()
        np.save(file, pixels)
        return file.getvalue()
