"""Archives of small frames, and a feed that remembers."""

from dataclasses import dataclass, replace

import numpy as np
from astropy.io import fits

from detector.fitsarchive import file_pointing, frame_labels, split_frames
from detector.fitsheader import Limits
from detector.frame import FrameHeader
from stream.archive import Way, paced, replay
from stream.broker import MessageTooLargeError
from stream.inventory import Inventory, Selection
from stream.manifest import SentFrames


@dataclass(frozen=True, eq=False)
class Ready:
    """What stands for a prepared frame."""

    header: FrameHeader
    size_bytes: int = 100

    @property
    def name(self):
        return f"{self.header.name.rpartition('/')[2]}[{self.header.extension}]"


class Tape:
    """A feed that remembers; stops the replay after so many frames."""

    def __init__(self, until=None, limit=10**9, sent=None):
        self.frames, self.until, self.limit = [], until, limit
        self.name, self.sent = "tape", SentFrames() if sent is None else sent

    def check(self, size_bytes, what):
        if size_bytes > self.limit:
            raise MessageTooLargeError(f"{what} has {size_bytes:,} bytes")

    def send(self, frame, entry):
        if len(self.frames) == self.until:
            raise KeyboardInterrupt
        self.frames.append(frame)
        self.sent.add(entry)

    @property
    def names(self):
        return [dict(frame.headers)["name"].decode().rpartition("/")[2] for frame in self.frames]


def image(path, *, date=None, exposure=None, ccd=None, size=24, n_hdus=0, seed=1, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)

    def pixels():
        return rng.normal(100, 5, (size, size)).astype(np.float32)

    hdus = [fits.PrimaryHDU(None if n_hdus else pixels())]
    hdus += [fits.ImageHDU(pixels(), fits.Header([("CCDNUM", n)]), name=f"CCD{n}") for n in range(1, n_hdus + 1)]
    if date:
        hdus[0].header["DATE-OBS"], hdus[0].header["EXPTIME"] = date, 10.0
    given = {"EXPNUM": exposure, "CCDNUM": ccd, **{name.upper(): value for name, value in more.items()}}
    hdus[0].header.update({name: value for name, value in given.items() if value is not None})
    fits.HDUList(hdus).writeto(path)
    return path


def pointed(path, *, minutes, east_arcsec=0.0, **more):
    """An image of 24 x 24 px of an arcsecond, so many minutes into a night and so far East of RA 10, Dec 20."""
    sky = {"ctype1": "RA---TAN", "ctype2": "DEC--TAN", "crpix1": 12.5, "crpix2": 12.5, "crval2": 20.0}
    sky |= {"crval1": 10.0 + east_arcsec / 3600.0 / np.cos(np.radians(20.0)), "cdelt1": -1 / 3600, "cdelt2": 1 / 3600}
    date = f"2024-05-06T{1 + minutes // 60:02d}:{minutes % 60:02d}:00"
    return image(path, date=date, **{"filter": "r", "exposure": minutes, "ccd": 1, "seed": minutes, **sky, **more})


def night(folder):
    """Files whose names are not in the order of their times; one without a time, one that is no FITS."""
    image(folder / "b.fits", date="2024-05-06T01:00:00", exposure=1)
    image(folder / "deep" / "a.fits", date="2024-05-06T03:00:00", exposure=3, seed=2)
    image(folder / "c.fits", date="2024-05-06T02:00:00", exposure=2, seed=3)
    image(folder / "timeless.fits", seed=4)
    (folder / "broken.fits").write_bytes(b"SIMPLE  = hm")
    return folder


def opened(folder, version="1"):
    return Inventory(folder / "archive.sqlite", version)


def look(path):
    return frame_labels(path, limits=Limits())


def run(paths, feed, *, state, selection=None, speed=None, each_hdu=False, keep_copies=False, together=False):
    """Replay to a feed; gives what became of each file, by its name."""
    inventory = opened(state)
    assert inventory.scan(paths, look, looked=lambda _: None) == []
    if together:
        inventory.point(lambda path: file_pointing(path, limits=Limits()), looked=lambda _: None)
    selection = selection or Selection()
    inventory.choose(selection)

    def split(path, *, extensions):
        return split_frames(path, limits=Limits(), extensions=extensions)

    way = Way(split=split, each_hdu=each_hdu, keep_copies=keep_copies, wait=lambda: None, stopping=lambda: False)
    if together:
        way = replace(way, field=inventory.field_of)
    files = paced(inventory.chosen(selection), speed, lambda: False)
    return {outcome.file.path.name: outcome for outcome in replay(files, feed, way)}
