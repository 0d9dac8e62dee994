"""FITS bytes or a file -> frames: the one door to ``astropy.io.fits``.

One file may hold a whole focal plane, and one sick HDU must not take the others with it: a reading gives, HDU by HDU, a
``Frame`` or the ``BadFrame`` that says why not, one at a time, so that 70 CCDs need the memory of one. Whatever the
bytes are, nothing but ``BadFrame`` comes out (and ``OSError`` where the file itself cannot be read: retry that).

How it fails at night is the list of reasons in ``docs/frames.md``: each a constant word, each with a sentence that says
what, which HDU, and what to look for.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.io.fits.hdu.compressed import _compression

from detector import checksum
from detector.companions import bits_of, flags_elsewhere, flags_for, role_of
from detector.fitsheader import Limits, number
from detector.fitsoutline import walk
from detector.fitssource import open_source
from detector.frame import BadFrame, Frame, MaskBit
from detector.frameheader import frame_header, inherited, survey_and_camera
from detector.pixels import Bits, Scaling, flagged, to_electrons
from detector.tilecompression import checked_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from detector.fitsheader import Cards, Outline, Source
    from detector.headervalues import Camera
    from detector.survey import Survey

# What astropy raises against a compressed image that passed our checks and still does not decode. Errors of the
# machine (OSError from a disk) cannot come: it reads from memory.
_DECODER_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, EOFError),
    *(zlib.error, fits.VerifyError, _compression.CfitsioException),  # the latter is nowhere public, nor an OSError
)
_TOO_MANY_SATURATED = 0.2  # of the pixels: then the level is wrong, not the frame
_UINT16_ZERO, _ADC_END = 32768.0, 65535.0  # BZERO of unsigned 16-bit numbers, and the largest of them


@dataclass(frozen=True, eq=False)
class Reading:
    """A file whose headers have been read: iterate to read its frames, one at a time.

    ``extensions`` are the HDUs that will come, as ``Frame`` or as ``BadFrame`` (whose ``extension`` says which), in
    order; ``passed_over`` counts the other HDUs by reason (``table``, ``empty``, ``companion``, ``not-chosen`` ...).
    ``flags`` is another file, of flag maps, or why it cannot be had.
    """

    name: str
    outlines: tuple[Outline, ...]
    extensions: tuple[int, ...]
    passed_over: Mapping[str, int]
    source: Source
    survey: Survey | None
    plane: int | None
    flags: Reading | BadFrame | None = None

    def __len__(self) -> int:
        """How many will come."""
        return len(self.extensions)

    def __iter__(self) -> Iterator[Frame | BadFrame]:
        """The frames; those that cannot be read are given as their ``BadFrame``, not raised."""
        for extension in self.extensions:
            try:
                yield self.frame(extension)
            except BadFrame as bad:
                yield bad

    def frame(self, extension: int) -> Frame:
        """One of the frames. Raises ``BadFrame``."""
        try:
            return self._frame(self.outlines[extension])
        except BadFrame as bad:
            raise BadFrame(bad.reason, f"{self.name} [{extension}]: {bad.detail}", extension=extension) from bad

    def _frame(self, outline: Outline) -> Frame:
        if outline.trouble is not None:
            raise outline.trouble
        cards = inherited(outline, self.outlines[0])
        survey, camera = survey_and_camera(cards, self.survey)
        pixels, mask, implausible = _converted(self._stored(outline), outline.cards, camera)
        mask, mask_flags = self._with_flags(outline, mask, survey)
        header = frame_header(
            self.name,
            outline,
            cards,
            (survey, camera),
            shape=(int(pixels.shape[0]), int(pixels.shape[1])),
            alone=len(self.extensions) == 1,
            flags=(*implausible, *mask_flags, *(("checksum-not-its-own",) if checksum.borrowed(outline.cards) else ())),
        )
        return Frame(header, pixels, mask)

    def _stored(self, outline: Outline) -> NDArray[np.generic]:
        """The stored numbers of one image [h, w], neither scaled nor in the machine's byte order."""
        shape = _image_shape(outline.shape, self.plane)
        data = self.source.read(outline.data_start, outline.data_start + outline.data_bytes)
        if len(data) < outline.data_bytes:
            raise BadFrame("truncated", f"the data end after {len(data)} of {outline.data_bytes} bytes")
        checksum.check(outline, self.source, data)
        if outline.kind == "compressed":
            stored = _decompressed(outline, data)
        else:
            stored = np.frombuffer(data, _DTYPES[outline.bitpix], math.prod(outline.shape))
        planes = stored.reshape(-1, *shape)
        return planes[self.plane or 0]

    def _with_flags(
        self, outline: Outline, mask: NDArray[np.uint8], survey: Survey
    ) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """The mask with the instrument's own flags, where the file has some."""
        maps = [(self, flags_for(outline, self.outlines))]
        if isinstance(self.flags, Reading):
            maps.append((self.flags, flags_elsewhere(outline, self.flags.outlines)))
        unreadable = self.flags is not None and (len(maps) == 1 or maps[-1][1] is None)
        for reading, companion in maps:
            if companion is None:
                continue
            try:
                mask = flagged(mask, *reading._flag_map(companion, survey))  # noqa: SLF001 - of another reading
            except BadFrame:
                unreadable = True
        return mask, ("mask-unreadable",) if unreadable else ()

    def _flag_map(self, outline: Outline, survey: Survey) -> tuple[NDArray[np.generic], int, Bits]:
        """The stored numbers of a flag map, what is to be added to them, and what their bits mean."""
        if outline.trouble is not None:
            raise outline.trouble
        _, zero, _ = _stored_scaling(outline.cards)
        return self._stored(outline), int(zero), bits_of(outline.cards, survey)


_DTYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


def read_frames(
    source: bytes | Path | BinaryIO,
    *,
    name: str,
    survey: Survey | None = None,
    limits: Limits | None = None,
    extension: int | None = None,
    plane: int | None = None,
    flags: Reading | BadFrame | None = None,
) -> Reading:
    """The frames of a FITS file (plain, .gz, .fz), to be iterated over.

    ``name`` goes into the headers and the refusals; ``survey`` None: by TELESCOP and INSTRUME; ``extension`` chooses
    one HDU, whatever it is called; ``plane`` one plane of a cube, counted from 0. ``flags`` is another file, whose flag
    maps go into the frames' masks (``read_flags``), or why it cannot be had: the frames are flagged then. A file that
    comes opened stays open.

    Raises ``BadFrame`` where the file as a whole cannot be read, and ``OSError`` where the path cannot.
    """
    limits = limits or Limits()
    with _refused_by_name(name):
        reader = open_source(source, limits)
        outlines = tuple(walk(reader, limits))
        extensions, passed_over = _chosen(outlines, extension)
    return Reading(name, outlines, extensions, passed_over, reader, survey, plane, flags)


def read_flags(source: Path | BinaryIO, *, name: str, limits: Limits | None = None) -> Reading:
    """A file of flag maps, for ``read_frames``; none of its images is a frame. Errors: as there."""
    limits = limits or Limits()
    with _refused_by_name(name):
        reader = open_source(source, limits)
        outlines = tuple(walk(reader, limits))
    return Reading(name, outlines, (), {}, reader, None, None)


@contextmanager
def _refused_by_name(name: str) -> Iterator[None]:
    """Put the file's name before the sentence of a refusal."""
    try:
        yield
    except BadFrame as bad:
        raise BadFrame(bad.reason, f"{name}: {bad.detail}", extension=bad.extension) from bad


def _chosen(outlines: tuple[Outline, ...], extension: int | None) -> tuple[tuple[int, ...], dict[str, int]]:
    """Which HDUs are to be read, and why the others are not."""
    passed_over: Counter[str] = Counter()
    chosen: list[int] = []
    for outline in outlines:
        image = outline.kind in {"image", "compressed"}
        if extension is not None and outline.number != extension:
            passed_over["not-chosen"] += 1
        elif outline.trouble is not None or (extension is not None and image):
            chosen.append(outline.number)
        elif not image:
            passed_over[outline.kind] += 1
        elif role_of(outline.cards) != "science":
            passed_over["companion"] += 1
        else:
            chosen.append(outline.number)
    if not chosen:
        listed = ", ".join(f"{count} {reason}" for reason, count in passed_over.items())
        which = "" if extension is None else f" as HDU {extension}"
        raise BadFrame(
            "no-image", f"no science image{which} among {len(outlines)} HDUs ({listed})", extension=extension
        )
    return tuple(chosen), dict(passed_over)


def _image_shape(shape: tuple[int, ...], plane: int | None) -> tuple[int, int]:
    """The shape [y, x] of the image that an HDU of this shape holds; raises ``BadFrame`` where it holds none."""
    if 0 in shape:
        raise BadFrame("zero-size", f"an axis of length 0 ({' x '.join(map(str, shape[::-1]))}): there are no pixels")
    if len(shape) < 2 or 1 in shape[-2:]:
        raise BadFrame("one-dimensional", f"{' x '.join(map(str, shape[::-1]))} pixels: a spectrum or a bias strip?")
    planes = math.prod(shape[:-2])
    if plane is None and planes > 1:
        sides = " x ".join(map(str, shape[::-1]))
        raise BadFrame("cube", f"a cube of {sides}: choose a plane from 0 to {planes - 1} (plane=, --plane)")
    if plane is not None and not 0 <= plane < planes:
        raise BadFrame("cube", f"there is no plane {plane}: the planes are 0 to {planes - 1}")
    return shape[-2], shape[-1]


def _decompressed(outline: Outline, data: bytes | memoryview) -> NDArray[np.generic]:
    """The stored numbers of a tile-compressed image."""
    file = checked_file(outline, data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(BytesIO(file), do_not_scale_image_data=True, memmap=False) as hdus:
                stored = hdus[1].data
    except _DECODER_ERRORS as error:
        raise BadFrame("damaged", f"the compressed image does not decode: {error}") from error
    if stored is None or stored.shape != outline.shape:
        raise BadFrame("damaged", "the compressed image decodes to another shape than its header says")
    return np.asarray(stored)


def _stored_scaling(cards: Cards) -> tuple[float, float, int | None]:
    """BSCALE, BZERO and BLANK (or ZBLANK) of the HDU's own header; a BSCALE of 0 is none."""
    blank = number(cards, "BLANK", "ZBLANK")
    scale, zero = number(cards, "BSCALE"), number(cards, "BZERO")
    return scale or 1.0, zero or 0.0, None if blank is None else int(blank)


def _converted(
    stored: NDArray[np.generic], cards: Cards, camera: Camera
) -> tuple[NDArray[np.float32], NDArray[np.uint8], tuple[str, ...]]:
    """Electrons, mask and flags of stored numbers; raises ``BadFrame`` where they hold nothing to look at."""
    scale, zero, blank = _stored_scaling(cards)
    unit = camera.electrons_per_unit
    saturation_e = math.inf if camera.saturation_e is None else camera.saturation_e
    if stored.dtype.kind == "i" and stored.dtype.itemsize == 2 and zero == _UINT16_ZERO:
        saturation_e = min(saturation_e, _ADC_END * scale * unit)
    pixels, mask, counts = to_electrons(stored, Scaling(scale * unit, zero * unit, blank, saturation_e))
    if counts.good == 0:
        raise BadFrame("all-nan", "not one pixel has a finite value: look at BLANK, BSCALE and the pipeline's mask")
    if counts.lowest == counts.highest:
        raise BadFrame("constant", f"all {counts.good} pixels are {counts.lowest:g}: a blank or an unexposed frame")
    if counts.saturated > _TOO_MANY_SATURATED * counts.good:
        return pixels, mask & ~np.uint8(MaskBit.SATURATED), ("saturation-implausible",)
    return pixels, mask, ()
