"""One untrusted image through Pillow: its claimed size, its orientation, its pixels as 8-bit RGB.

Only used by the decoding child (:mod:`data_prep.decode_worker`), which may be killed.

What comes out: the picture turned as its EXIF orientation says; palettes, grey, CMYK and 16 bits
a channel converted to 8-bit RGB (the high byte of 16); transparency flattened on white. Colour
profiles are not applied, as films' are not. Of an animation it is the first frame.
"""

from collections.abc import Callable
from io import BufferedReader, FileIO, RawIOBase
from typing import Any

import numpy as np
from PIL import Image

from data_prep.film import Refused

FORMATS = ("JPEG", "PNG", "WEBP")
WHITE = (255, 255, 255, 255)
"""What shows through transparent pixels."""
BUFFER_BYTES = 1 << 18
"""What is asked at once of an image that is no local file."""
_ORIENTATION = 0x0112
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what rights the picture; 1 and unknown values need nothing."""


class StillImage:
    """One open image; its claimed size is checked before any pixel is decoded.

    Args:
        path: of a local file.
        source: opens what is to be read in place of `path`, seekable; None reads `path`.
        pixels_max: the most that it may claim, width times height.

    Raises:
        Refused: not an image that Pillow can open, or one that claims too many pixels.
    """

    def __init__(self, path: str, source: Callable[[], RawIOBase] | None, pixels_max: int) -> None:
        self.path, self._source, self._pixels_max = path, source, pixels_max
        Image.MAX_IMAGE_PIXELS = None  # Pillow only warns up to twice its limit; ours is exact
        self._image = self._opened()
        self.codec = "jpeg" if self._is_jpeg else str(self._image.format).lower()
        # Further pictures in a JPEG (MPO) are previews and depth maps, no animation.
        self.frames = 1 if self._is_jpeg else int(getattr(self._image, "n_frames", 1))
        self._turn = _TURNED.get(_orientation(self._image))
        self._is_sideways = self._turn is not None and _orientation(self._image) >= 5
        width, height = self._image.size
        self.width_px, self.height_px = (height, width) if self._is_sideways else (width, height)

    @property
    def _is_jpeg(self) -> bool:
        return self._image.format in ("JPEG", "MPO")

    def info(self) -> dict[str, Any]:
        """Return what the file claims, by the names of :class:`data_prep.types.VideoInfo`."""
        return {
            "media": "image",
            "duration_s": 0.0,
            "fps": 0.0,
            "width_px": self.width_px,
            "height_px": self.height_px,
            "frames": self.frames,
            "codec": self.codec,
        }

    def scaled(self, width: int, height: int) -> np.ndarray:
        """Return the picture at `width` x `height`, whatever its shape (uint8 HWC)."""
        return self._resized(width, height, crop=False)

    def cover(self, width: int, height: int) -> np.ndarray:
        """Scale the picture until it covers `width` x `height`, cut out its centre (uint8 HWC)."""
        return self._resized(width, height, crop=True)

    def _resized(self, width: int, height: int, *, crop: bool) -> np.ndarray:
        size = (height, width) if self._is_sideways else (width, height)
        image = self._image
        if self._is_jpeg:  # libjpeg scales by whole factors while it decodes, for less work
            image = self._opened()
            image.draft(None, (2 * size[0], 2 * size[1]))
        try:
            image.load()
        except (OSError, SyntaxError, ValueError) as error:
            reason = "truncated" if "truncated" in str(error).lower() else "decode_error"
            raise Refused(reason, str(error)) from None
        # Only the wanted part is scaled, so that a 1 x 5000 strip makes no giant on the way.
        have = image.size
        scale = max(size[0] / have[0], size[1] / have[1])
        part = (size[0] / scale, size[1] / scale) if crop else have
        left, top = (have[0] - part[0]) / 2, (have[1] - part[1]) / 2
        box = (
            max(0.0, left),
            max(0.0, top),
            min(have[0], left + part[0]),
            min(have[1], top + part[1]),
        )
        how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
        found = _flat(image).resize(size, how, box)
        return np.asarray(found if self._turn is None else found.transpose(self._turn))

    def _opened(self) -> Image.Image:
        raw = self._source() if self._source else FileIO(self.path)
        file = BufferedReader(raw, BUFFER_BYTES)
        _check_webp(file, self._pixels_max)
        try:
            image = Image.open(file, formats=FORMATS)
        except Exception as error:  # Pillow's parsers raise of all kinds on damaged headers
            if isinstance(error, MemoryError):
                raise
            raise Refused("decode_error", f"its header cannot be read: {error}") from None
        _check_size(*image.size, self._pixels_max)
        return image


def _check_size(width: int, height: int, pixels_max: int) -> None:
    if width * height > pixels_max:
        what = f"claims {width} x {height} pixels; decode.image_pixels is {pixels_max}"
        raise Refused("too_large", what)


def _check_webp(file: Any, pixels_max: int) -> None:
    """Check what a WebP file claims, since opening one with Pillow allots its whole canvas.

    The claims are those of its RIFF header and of the first chunk (RFC 9649, section 2).
    """
    head = file.read(30)
    if len(head) == 30 and head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        if head[12:16] == b"VP8X":
            width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
            _check_size(width, height, pixels_max)
        claimed = 8 + int.from_bytes(head[4:8], "little")
        if (there := file.seek(0, 2)) < claimed:
            raise Refused("truncated", f"{there} of {claimed} bytes: the file is cut short")
    file.seek(0)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where the tag is missing or cannot be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError) as error:  # of PNG, which is read whole for it
        reason = "truncated" if "truncated" in str(error).lower() else "decode_error"
        raise Refused(reason, str(error)) from None
    except Exception:  # a damaged tag is no reason against the picture; viewers ignore it too
        return 1
    return found if isinstance(found, int) else 1


def _flat(image: Image.Image) -> Image.Image:
    """Return an image of any mode as 8-bit RGB, transparency flattened on white."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow's own conversion would clip
        values = np.asarray(image)
        grey = (values >> 8).clip(0, 255).astype(np.uint8)
        if isinstance(clear := image.info.get("transparency"), int):
            grey[values == clear] = WHITE[0]
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image.convert("RGB")
