"""A cell of an image column goes in; its images, or what is wrong with it, come out.

A cell may be a path, several paths joined by `;`, encoded bytes, base64 text (bare, or as a `data:` URI), an image of Pillow, an
array (H, W, 3) or (H, W) of bytes, the `{"bytes": ..., "path": ...}` that Parquet files of image datasets hold, or a list of
such. What becomes of odd images is a table in docs/images.md.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featherfit.errors import FeatherfitError, MissingDependencyError

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What is opened; others of Pillow's formats call further programs, or are no photographs or drawings."""

MOST_PIXELS = 1 << 26
"""Pixels an image may have, 8192 x 8192: decoded it takes 0.2 GB, which a file of a few KB can ask for."""

MOST_STRETCHED = 100
"""How many times longer than the other a side may be."""

FOLDER = "featherfit_folder"
"""Key of a DataFrame's `attrs` under which a table that was read from a file has its folder."""

THREADS = max(1, min(4, os.cpu_count() or 1))
"""Threads that decode images."""

AT_ONCE = 4096
"""Cells that are handed to them at a time."""

SEPARATOR = ";"
EXTENSIONS = frozenset(
    ".avif .bmp .gif .j2k .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)  # fmt: skip

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DATA_URI = re.compile(r"data:image/[A-Za-z0-9.+-]+;base64,")


def folder_of(frame: pd.DataFrame) -> Path | None:
    """What relative paths in a table are relative to: its file's folder, or None for the working folder."""
    folder = frame.attrs.get(FOLDER)
    return None if folder is None else Path(folder)


def with_folder(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    """A table that was read from `file` and is nobody else's, with its folder noted."""
    frame.attrs[FOLDER] = str(file.absolute().parent)
    return frame


class BadImageError(FeatherfitError, ValueError):
    """A cell that gives no image; the message says why, in half a sentence."""


@dataclass(frozen=True)
class Source:
    """Where one image of a cell is from: a file, encoded bytes, or an object that is an image already."""

    path: Path | None = None
    encoded: bytes | None = None
    decoded: Any = None

    def identity(self) -> bytes:
        """Bytes that are equal where images are; of a file its path and size, which is as far as one sees without reading it."""
        if self.path is not None:
            size = self.path.stat().st_size if self.path.is_file() else -1
            return f"{self.path.as_posix()}|{size}".encode("utf-8", "surrogateescape")
        if self.encoded is not None:
            return hashlib.sha256(self.encoded).digest()
        pixels = np.asarray(self.decoded)
        return hashlib.sha256(f"{pixels.shape}{pixels.dtype}".encode() + pixels.tobytes()).digest()


def sources(cell: Any, column_type: str, folder: Path | None = None) -> list[Source]:
    """The images a cell names; none for a missing one or empty text.

    Args:
        cell: The value.
        column_type: Type of its column, which says what text is: base64 for `image_base64_str`, else paths.
        folder: What relative paths are relative to; None for the working folder.

    Raises:
        BadImageError: Nothing an image can be had from, or a URL.
    """
    if isinstance(cell, str):
        split = _base64_parts if column_type == "image_base64_str" else _path_parts
        return [source for part in split(cell) for source in _of_text(part, column_type, folder)]
    if isinstance(cell, os.PathLike):
        return _of_text(os.fspath(cell), "image_path", folder)
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return [Source(encoded=bytes(cell))] if len(cell) else []
    if isinstance(cell, dict):
        return _of_dict(cell, column_type, folder)
    if isinstance(cell, (list, tuple)) or (isinstance(cell, np.ndarray) and cell.dtype == object):
        return [source for item in cell for source in sources(item, column_type, folder)]
    if is_pillow(cell) or (isinstance(cell, np.ndarray) and cell.ndim in (2, 3)):
        return [Source(decoded=cell)]
    if _is_missing(cell):
        return []
    raise BadImageError(f"{type(cell).__name__} is no image: give a path, bytes, base64 text or an image of Pillow")


def open_image(source: Source) -> Image:
    """Decodes an image to 8 bits of red, green and blue.

    The first frame of an animation; turned as its EXIF says; transparent places white; CMYK converted; 16 bits scaled to 8.

    Raises:
        BadImageError: It is not there, damaged, cut off, of an unknown format, or too large.
    """
    pillow = _pillow()
    try:
        with _opened(source) as image:
            _check_size(image)
            image.load()
            return _plain(pillow.ImageOps.exif_transpose(image))
    except BadImageError:
        raise
    except Exception as error:  # decoders raise nearly anything for damaged data, SyntaxError and struct.error included
        raise BadImageError(_reason(source, error)) from None


def glance(source: Source) -> None:
    """Looks at the beginning of an image, enough to see what it is and how large.

    Raises:
        BadImageError: As `open_image`, but for damage further inside.
    """
    if source.decoded is not None:
        return
    try:
        with _opened(source) as image:
            _check_size(image)
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(_reason(source, error)) from None


def is_pillow(value: Any) -> bool:
    """Whether this is an image of Pillow's, which is not imported to find out."""
    kinds = type(value).__mro__
    return any(kind.__name__ == "Image" and kind.__module__ == "PIL.Image" for kind in kinds)


def looks_like_path(text: str) -> bool:
    """Whether every part of `a.png;b.jpg` ends as an image file does."""
    parts = list(_path_parts(text))
    return bool(parts) and all(Path(part).suffix.lower() in EXTENSIONS for part in parts)


def looks_like_base64(text: str) -> bool:
    """Whether this can be an encoded image: as long as the smallest ones, and base64's letters only."""
    if _DATA_URI.match(text):
        return True
    return len(text) >= 32 and re.fullmatch(r"[A-Za-z0-9+/\s]+={0,2}\s*", text[:4096]) is not None


def _of_text(part: str, column_type: str, folder: Path | None) -> list[Source]:
    if _DATA_URI.match(part) or column_type == "image_base64_str":
        try:
            return [Source(encoded=base64.b64decode(_DATA_URI.sub("", part, count=1), validate=True))]
        except (binascii.Error, ValueError):
            raise BadImageError("the text is no base64") from None
    if _URL.match(part):
        raise BadImageError(
            f"{part[:80]!r} is a URL, and nothing is downloaded: results would depend on a server. Save the files and give "
            "their paths"
        )
    if "\0" in part:
        raise BadImageError("a path holds no zero bytes")
    path = Path(part).expanduser() if part.startswith("~") else Path(part)
    return [Source(path=path if folder is None or path.is_absolute() else folder / path)]


def _of_dict(cell: dict[Any, Any], column_type: str, folder: Path | None) -> list[Source]:
    encoded, path = cell.get("bytes"), cell.get("path")
    if isinstance(encoded, (bytes, bytearray, memoryview)) and len(encoded):
        return [Source(encoded=bytes(encoded))]
    if isinstance(path, str) and path:
        return _of_text(path, "image_path", folder)
    raise BadImageError("a mapping without 'bytes' or 'path' is no image")


def _path_parts(text: str) -> Iterator[str]:
    if _DATA_URI.match(text):
        yield text
        return
    yield from filter(None, (part.strip() for part in text.split(SEPARATOR)))


def _base64_parts(text: str) -> Iterator[str]:
    """Parts joined by `;`, of which there is one inside a `data:` URI too; without line breaks."""
    for part in re.split(r";(?!base64,)", text):
        bare = "".join(part.split())
        if bare:
            yield bare


def _is_missing(cell: Any) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_scalar(cell) and pd.isna(cell))


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError:
        raise MissingDependencyError('Image columns need Pillow: pip install "featherfit[image]"') from None
    return PIL


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    image = _pillow().Image
    image.init()
    return tuple(name for name in FORMATS if name in image.OPEN)


def _opened(source: Source) -> Any:
    """The image, its pixels not yet decoded."""
    pillow = _pillow()
    if source.decoded is None:
        # A file that cannot be opened, or bytes of another format, are told apart by the error.
        where = source.path if source.encoded is None else io.BytesIO(source.encoded)
        return pillow.Image.open(where, formats=_formats())
    if is_pillow(source.decoded):
        return source.decoded.copy()  # the caller's own stays as it is
    array = np.asarray(source.decoded)
    if array.dtype != np.uint8 or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise BadImageError(
            f"an array of {array.dtype} and shape {array.shape} is no image: give bytes of shape (H, W) or (H, W, 3)"
        )
    return pillow.Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _check_size(image: Image) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise BadImageError(f"it has {width} x {height} pixels, more than the {MOST_PIXELS:,} that are decoded")
    if min(width, height) == 0 or max(width, height) > MOST_STRETCHED * min(width, height):
        raise BadImageError(f"it has {width} x {height} pixels, one side more than {MOST_STRETCHED} times the other")


def _plain(image: Image) -> Image:
    """8 bits of red, green and blue."""
    pillow = _pillow()
    if image.mode == "F":
        raise BadImageError("its pixels are fractions, for which no range is defined; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        deep = np.clip(np.asarray(image).astype(np.int64), 0, 65_535)
        image = pillow.Image.fromarray(((deep * 255 + 32_767) // 65_535).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = pillow.Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = pillow.Image.alpha_composite(ground, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(source: Source, error: Exception) -> str:
    import PIL.Image

    what = "the data" if source.path is None else f"{str(source.path)[-160:]!r}"
    if isinstance(error, FileNotFoundError):
        return f"there is no file {what}"
    if isinstance(error, IsADirectoryError):
        return f"{what} is a folder"
    if isinstance(error, PermissionError):
        return f"{what} may not be read"
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"{what} is no image of a known format ({', '.join(FORMATS)})"
    if isinstance(error, (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)):
        return f"{what} has more pixels than the {MOST_PIXELS:,} that are decoded"
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{what} is damaged or cut off ({first[:120]})"
