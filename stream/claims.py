"""Claim checks: the file that a message's ``uri`` points to, opened only where the operator allowed it.

A message comes from a stranger; a worker may read far more than strangers should make it read. So a claim is followed
under ``claim_roots`` alone, is opened once, folder by folder without following links, and what is judged is what was
opened: nobody can exchange the file between the look and the reading. Only regular files, and none over the limit.

Roots elsewhere (``s3://bucket/prefix``) go through fsspec, if it is installed (extra ``claims``).

What fails at night: a claim that may not be followed or is not there is a ``BadFrame``. A root that is away (a disk
that is not mounted) is an ``OSError``, since the next claim would fare no better: the worker stops.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from detector.frame import BadFrame

if TYPE_CHECKING:
    from collections.abc import Sequence

# Linux opens a folder to pass through it, without the right to list it; elsewhere it has to be readable.
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MISSING = {errno.ENOENT, errno.ENOTDIR}
# EINVAL: what was a link a moment ago is none now.
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL}
_REMOTE = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)", re.DOTALL)


class RootError(Exception):
    """A claim root that cannot be used as things are; the text says which and what to install."""


@dataclass(frozen=True)
class Claims:
    """Where claims may point to: folders, and roots of other file systems as text; and how large a file may be."""

    roots: tuple[Path | str, ...] = ()
    max_bytes: int = 2**33

    def open(self, uri: str) -> BinaryIO:
        """Give the file behind a URI, opened; whoever gets it closes it.

        Raises ``BadFrame``: ``claim-refused``, ``claim-missing``, ``too-large``.
        """
        return self.open_known(uri)[0]

    def open_known(self, uri: str) -> tuple[BinaryIO, str]:
        """Give the file behind a URI, opened as by ``open``, and words that are others once it has changed."""
        remote = _REMOTE.fullmatch(uri)
        if remote is not None and remote[1] != "file":
            file, size_bytes, version = self._opened_elsewhere(uri, remote[1], remote[2])
            return self._sized(uri, file, size_bytes), version
        file = self._opened(uri, _path_of(uri))
        status = os.fstat(file.fileno())
        version = f"{status.st_dev}/{status.st_ino}/{status.st_size}/{status.st_mtime_ns}"
        return self._sized(uri, file, status.st_size), version

    def _sized(self, uri: str, file: BinaryIO, size_bytes: int) -> BinaryIO:
        if size_bytes > self.max_bytes:
            file.close()
            raise BadFrame(
                "too-large",
                f"uri {uri[:200]!r} has {size_bytes} bytes; the limit is {self.max_bytes} (max_claim_bytes)",
            )
        return file

    def _opened(self, uri: str, path: Path) -> BinaryIO:
        homes = self._homes()
        nowhere = BadFrame(
            "claim-refused", f"uri {uri[:200]!r} lies under none of the claim roots (setting claim_roots)"
        )
        try:
            file = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            # Whether a file exists that lies elsewhere is nobody's business.
            if not any(path.is_relative_to(home) for home in [*homes, *self.roots]):
                raise nowhere from None
            raise _refusal(uri, error) from None
        home = next((home for home in homes if file.is_relative_to(home) and file != home), None)
        if home is None:
            raise nowhere
        try:
            return _opened_under(home, file.relative_to(home).parts, uri)
        except OSError as error:
            raise _refusal(uri, error) from None

    def _homes(self) -> list[Path]:
        """The folders as they really are; raises ``OSError`` for one that is away."""
        folders = [root for root in self.roots if isinstance(root, Path)]
        for folder in folders:
            if not folder.is_dir():
                raise FileNotFoundError(
                    errno.ENOENT, "claim root (setting claim_roots) is away; is it mounted?", str(folder)
                )
        return [folder.resolve(strict=True) for folder in folders]

    def _opened_elsewhere(self, uri: str, scheme: str, path: str) -> tuple[BinaryIO, int, str]:
        parts = path.split("/")
        if not all(_is_plain(part) for part in parts):
            raise BadFrame("claim-refused", f"uri {uri[:200]!r} is not a plain path without '..'")
        if not any(_is_under(parts, scheme, root) for root in self.roots if isinstance(root, str)):
            raise BadFrame(
                "claim-refused", f"uri {uri[:200]!r} lies under none of the claim roots (setting claim_roots)"
            )
        system = _file_system(scheme)
        try:
            told = system.info(path)
            if told.get("type") != "file" or not isinstance(told.get("size"), int):
                raise BadFrame("claim-refused", f"uri {uri[:200]!r} is not a file of known size")
            return cast("BinaryIO", system.open(path, "rb")), int(told["size"]), f"{uri} {system.ukey(path)}"
        except FileNotFoundError:
            raise BadFrame("claim-missing", f"uri {uri[:200]!r}: no such file") from None
        except PermissionError:
            raise BadFrame("claim-refused", f"uri {uri[:200]!r} may not be read by this worker") from None
        except OSError as error:
            # Stores say of a key that they cannot have what a disk says of a name: too long, or not valid.
            raise _refusal(uri, error) from None


def check_roots(roots: Sequence[Path | str]) -> None:
    """Raise ``RootError`` for a root whose file system cannot be had: better now than at the first claim."""
    for root in roots:
        if isinstance(root, str):
            _file_system(root.partition("://")[0])


def _path_of(uri: str) -> Path:
    """The path of a ``file://`` URI or an absolute path."""
    if uri.startswith("/"):
        path = Path(uri)
    else:
        try:
            parts = urlsplit(uri)
        except ValueError as error:  # brackets that are no IPv6 address, letters that look like others
            raise BadFrame("claim-refused", f"uri {uri[:200]!r} is no URI: {error}") from None
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            raise BadFrame("claim-refused", f"uri {uri[:200]!r}: only files under a claim root are followed")
        path = Path(unquote(parts.path))
    if not path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise BadFrame("claim-refused", f"uri {uri[:200]!r} is not an absolute path without '..'")
    return path


def _opened_under(home: Path, parts: tuple[str, ...], uri: str) -> BinaryIO:
    """Open a file by its folders, none of which is a link any more: they were resolved before."""
    here = os.open(home, _PASS)
    try:
        for part in parts[:-1]:
            there = os.open(part, _PASS | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = there
        # Looked at before it is opened, since opening a device may move it; and after, since it may be another by then.
        if stat.S_ISREG(os.stat(parts[-1], dir_fd=here, follow_symlinks=False).st_mode):
            file = open(os.open(parts[-1], _READ, dir_fd=here), "rb")  # noqa: PTH123, SIM115 - by its folder; returned
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file
            file.close()
    finally:
        os.close(here)
    raise BadFrame("claim-refused", f"uri {uri[:200]!r} is not a regular file")


def _refusal(uri: str, error: Exception) -> Exception:
    """What an error against one claim means; those of the machine stay what they are."""
    number = error.errno if isinstance(error, OSError) else errno.ELOOP
    if number in _MISSING:
        return BadFrame("claim-missing", f"uri {uri[:200]!r}: no such file")
    if number in _FORBIDDEN:
        return BadFrame("claim-refused", f"uri {uri[:200]!r} cannot be opened by this worker: {os.strerror(number)}")
    return error


def _is_plain(part: str) -> bool:
    """Whether a piece of a path is a name and nothing else, also to who decodes it once more."""
    return part != "" and unquote(part) not in {".", ".."} and not set(part) & set("\0\\?*[]") and "::" not in part


def _is_under(parts: Sequence[str], scheme: str, root: str) -> bool:
    kind, _, place = root.partition("://")
    home = place.strip("/").split("/")
    return kind == scheme and len(parts) > len(home) and list(parts[: len(home)]) == home


def _file_system(scheme: str) -> Any:
    try:
        import fsspec  # noqa: PLC0415 - an extra
    except ImportError:
        raise RootError(
            f"claim_roots: {scheme}:// needs fsspec; install needlestream with its extra: needlestream[claims]"
        ) from None
    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        raise RootError(f"claim_roots: {scheme}:// needs one more package: {error}") from None
    except ValueError as error:
        raise RootError(f"claim_roots: {scheme}:// is no file system that fsspec knows: {error}") from None
