"""Films: a zone through its season, one animated GIF per view, every step with the same stretch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.sensors import NODATA
from cropray.io.pictures import INK
from cropray.io.storage import Location, whole_file
from cropray.report.drawing import band_title, initials

FRAME_MS: Final = 700
_LAST_FRAME_MS: Final = 1800  # a rest before the year begins again
_STRETCH: Final = (2, 98)  # percentiles over the year that become black and white
_N_TONES: Final = 16  # palette entries for lettering, from ink to white
_N_COLOURS: Final = 128  # and for the image; 240 look the same and make the file a tenth larger
_MARGIN: Final = 8  # around the image, pixels
_HEAD: Final = 46  # lettering above the image, pixels
_FOOT: Final = 24  # months below the image, pixels
_MUTED: Final = 0.45  # lightness of secondary lettering, 0 = ink, 1 = white
_HATCH_PX: Final = 7  # distance of the lines over filled pixels
_HATCH_STRENGTH: Final = 0.4  # how far those lines are drawn towards white
_CHECKER_PX: Final = 5
_CHECKER: Final = (196, 226)  # two greys that stand for no data


@dataclass(frozen=True, slots=True)
class View:
    """What a film shows."""

    name: str
    """Becomes the file's name."""
    title: str
    bands: tuple[str, ...]
    """Three for red, green and blue; one for grey."""
    one_stretch: bool = False
    """One stretch for all bands, so that grey stays grey; else each band has its own."""


_TRUE_COLOUR: Final = View("true_colour", "true colour", ("B04", "B03", "B02"), one_stretch=True)
_FALSE_COLOUR: Final = View("false_colour", "infrared, red, green", ("B08", "B04", "B03"))


def views_of(cube: CubeSpec) -> tuple[View, ...]:
    """The films of a zone: in colours, and of each band; none where the cube lacks the bands that eyes see."""
    if cube.positions(_TRUE_COLOUR.bands) is None:
        return ()
    colours = [view for view in (_TRUE_COLOUR, _FALSE_COLOUR) if cube.positions(view.bands) is not None]
    return (*colours, *(View(band.id, band_title(band), (band.id,)) for band in cube.bands))


@dataclass(frozen=True, slots=True)
class ZoneYear:
    """A zone at the size of its films."""

    zone_id: str
    months: tuple[str, ...]
    """Of each step, `Jan 2023` and so on."""
    image: npt.NDArray[np.float32]
    """[T, C, h, w] digital numbers; NaN = no data."""
    filled: npt.NDArray[np.bool_]
    """[T, h, w] no clear observation in the step: the value was made up from neighbouring ones."""
    share_filled: tuple[float, ...]
    """Per step, of the pixels at full size."""
    cube: CubeSpec = STUDY_CUBE


def zone_year(
    zone_id: str,
    months: Sequence[str],
    composite: npt.NDArray[np.uint16],
    n_obs: npt.NDArray[np.uint8],
    size_px: int,
    cube: CubeSpec = STUDY_CUBE,
) -> ZoneYear:
    """Bring a zone to the size of its films, of which `size_px` is the longer side.

    `composite` is [T, C, H, W] digital numbers, 0 = no data; `n_obs` [T, H, W] clear observations; `months` names the steps.
    """
    images = []
    for month in composite:
        valid = month != NODATA
        weight = np.stack([fit(band, size_px) for band in valid])
        values = np.stack([fit(band, size_px) for band in month])  # no data is 0 and adds nothing
        images.append(np.where(weight >= 0.5, values / np.maximum(weight, 1e-6), np.nan).astype(np.float32))
    filled = np.stack([fit(month == 0, size_px) >= 0.5 for month in n_obs])
    shares = tuple(float(share) for share in (n_obs == 0).mean((1, 2)))
    return ZoneYear(zone_id, tuple(months), np.stack(images), filled, shares, cube)


def fit(image: npt.NDArray[Any], size_px: int) -> npt.NDArray[np.float32]:
    """An image [H, W] with `size_px` as its longer side: averaged down, or enlarged by a whole factor below it."""
    longer = max(image.shape)
    if longer <= size_px:
        factor = size_px // longer
        return image.astype(np.float32).repeat(factor, 0).repeat(factor, 1)
    height, width = (max(1, round(side * size_px / longer)) for side in image.shape)
    resized = Image.fromarray(image.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(resized)


def draw_film(year: ZoneYear, view: View, path: Location) -> None:
    """Write one film whole, as an animated GIF of a frame per step with one palette."""
    indices, palette = _quantise(_paint(year, view))
    images = []
    for month, index in enumerate(indices):
        image = Image.fromarray(_frame(year, view, month, index), "P")
        image.putpalette(palette)
        images.append(image)
    durations = [FRAME_MS] * (len(images) - 1) + [_LAST_FRAME_MS]
    with whole_file(path) as temporary:
        images[0].save(
            temporary, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False
        )


def stretch(year: ZoneYear, band: str) -> tuple[float, float]:
    """(black, white) of a band: percentiles over everything that was observed in the year, digital numbers."""
    values = year.image[:, year.cube.band_ids.index(band)]
    known = np.isfinite(values)
    observed = values[known & ~year.filled]
    pool = observed if observed.size else values[known]
    if not pool.size:
        return 0.0, 1.0
    low, high = np.percentile(pool, _STRETCH)
    return float(low), float(max(high, low + 1))


def _paint(year: ZoneYear, view: View) -> npt.NDArray[np.uint8]:
    """[T, h, w, 3] colours: hatched where filled, a checkerboard where there is no data."""
    limits = [stretch(year, band) for band in view.bands]
    if view.one_stretch:
        limits = [(min(low for low, _ in limits), max(high for _, high in limits))] * len(limits)
    channels = [
        np.clip((year.image[:, year.cube.band_ids.index(band)] - low) / (high - low), 0, 1)
        for band, (low, high) in zip(view.bands, limits, strict=True)
    ]
    colours = np.stack(channels if len(channels) == 3 else channels * 3, axis=-1) * 255
    rows, cols = np.indices(colours.shape[1:3])
    on_line = (rows + cols) % _HATCH_PX == 0
    hatched = year.filled & on_line
    colours[hatched] += _HATCH_STRENGTH * (255 - colours[hatched])
    checker = np.where((rows // _CHECKER_PX + cols // _CHECKER_PX) % 2, *_CHECKER)
    empty = np.isnan(colours).any(-1)
    colours[empty] = np.broadcast_to(checker[None, ..., None], colours.shape)[empty]
    return colours.round().astype(np.uint8)


def _quantise(pictures: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """(palette indices [T, h, w], palette of tones and colours): one palette for all months, so that none flickers."""
    n_months, height, width, _ = pictures.shape
    tall = Image.fromarray(pictures.reshape(n_months * height, width, 3))
    # Without dithering: its noise changes from month to month and doubles the file.
    quantised = tall.quantize(_N_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours = (quantised.getpalette() or [])[: 3 * _N_COLOURS]
    indices = np.asarray(quantised).reshape(n_months, height, width) + np.uint8(_N_TONES)
    return indices, [*_tones(), *colours]


def _tones() -> Iterator[int]:
    """Ink to white, red, green and blue in turn."""
    ink = [int(INK[i : i + 2], 16) for i in (1, 3, 5)]
    for tone in range(_N_TONES):
        yield from (round(channel + (255 - channel) * tone / (_N_TONES - 1)) for channel in ink)


def _frame(year: ZoneYear, view: View, month: int, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Palette indices of a whole frame: month, zone and view above the image, the year below it."""
    height, width = picture.shape
    canvas = Image.new("L", (width + 2 * _MARGIN, _HEAD + height + _FOOT), 255)
    pen = ImageDraw.Draw(canvas)
    right = canvas.width - _MARGIN
    muted = round(255 * _MUTED)
    pen.text((_MARGIN, 4), year.months[month], fill=0, font=_font(17, bold=True))
    pen.text((right, 7), year.zone_id, fill=0, font=_font(12), anchor="ra")
    pen.text((_MARGIN, 27), view.title, fill=muted, font=_font(11))
    pen.text((right, 27), f"{_percent(year.share_filled[month])} filled", fill=muted, font=_font(11), anchor="ra")
    _draw_year(pen, year, month, _HEAD + height)
    frame = np.rint(np.asarray(canvas) * ((_N_TONES - 1) / 255)).astype(np.uint8)
    frame[_HEAD : _HEAD + height, _MARGIN : _MARGIN + width] = picture
    return frame


def _draw_year(pen: ImageDraw.ImageDraw, year: ZoneYear, month: int, top: int) -> None:
    """The initials of the months in a row, the current step marked."""
    marks = initials(year.months)
    step = year.image.shape[-1] / len(year.months)
    for i, mark in enumerate(marks):
        left = _MARGIN + i * step
        is_now = i == month
        pen.rectangle((left + 1, top + 4, left + step - 2, top + 7), fill=0 if is_now else 215)
        tone = 0 if is_now else round(255 * _MUTED)
        pen.text((left + step / 2, top + 9), mark, fill=tone, font=_font(10, bold=is_now), anchor="ma")


def _percent(share: float) -> str:
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: the same film on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size_px)
