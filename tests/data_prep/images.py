"""Images of many kinds, and files that break decoders, made from a real picture at test time."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data_prep.poison import Expected

SIZE = (256, 144)
WHOLE = Expected("kept", frames=1, size=SIZE)
ORIENTED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, 3),
}
"""EXIF orientation -> how pixels are stored that it rights."""


def write_oriented(path: Path, shown_HWC: np.ndarray, orientation: int) -> Path:
    """Write a picture that is `shown_HWC` once its EXIF orientation is honoured."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(ORIENTED[orientation](shown_HWC))
    extra = {".webp": {"lossless": True}, ".jpg": {"quality": 95}}.get(path.suffix, {})
    Image.fromarray(stored).save(path, exif=exif, **extra)
    return path


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return one chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(width: int, height: int) -> bytes:
    """Return a small PNG of 1-bit grey that claims so many pixels, and has them."""
    packer = zlib.compressobj(9)
    row = bytes(1 + -(-width // 8))
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (png_chunk(b"IHDR", head), png_chunk(b"IDAT", body), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def webp_claiming(data: bytes, width: int, height: int) -> bytes:
    """Return an animated WebP whose canvas claims this size."""
    assert data[12:16] == b"VP8X"
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return data[:24] + sizes + data[30:]


def write_animation(path: Path, pictures: list[np.ndarray]) -> Path:
    """Write pictures as an animated WebP or PNG."""
    first, *rest = map(Image.fromarray, pictures)
    first.save(path, save_all=True, append_images=rest, duration=100, lossless=True)
    return path


def build(folder: Path, picture_HWC: np.ndarray, film: bytes) -> dict[str, Expected]:
    """Fill `folder` with images of all kinds; return what to expect of each file by name.

    Args:
        folder: an existing directory.
        picture_HWC: uint8, of :data:`SIZE`.
        film: the bytes of a whole film of that size, which goes by an image's name.
    """
    made: dict[str, Expected] = {}
    image = Image.fromarray(picture_HWC)

    def put(name: str, data: bytes, expected: Expected) -> None:
        (folder / name).write_bytes(data)
        made[name] = expected

    def save(name: str, shown: Image.Image, **options: object) -> bytes:
        shown.save(folder / name, **options)  # type: ignore[arg-type]
        made[name] = WHOLE
        return (folder / name).read_bytes()

    jpeg = save("plain.jpg", image, quality=90)
    save("progressive.jpeg", image, quality=80, progressive=True)
    save("cmyk.jpg", image.convert("CMYK"))
    save("grey.jpg", image.convert("L"), quality=91)
    png = save("plain.png", image)
    clear = image.quantize(16)
    save("palette and alpha.png", clear, transparency=3)
    grey16 = np.asarray(image.convert("L")).astype(np.uint16) * 257
    save("16 bit.png", Image.fromarray(grey16))
    webp = save("plain.webp", image, quality=80)
    made["turned.jpg"] = made["turned.png"] = WHOLE
    write_oriented(folder / "turned.jpg", picture_HWC, 6)
    write_oriented(folder / "turned.png", picture_HWC, 5)
    shifted = [np.roll(picture_HWC, 8 * n, 1) for n in range(3)]
    write_animation(folder / "animated.webp", shifted)
    write_animation(folder / "animated.png", shifted)
    made["animated.webp"] = made["animated.png"] = Expected("kept", frames=3, size=SIZE)
    Image.fromarray(picture_HWC[::2, ::2]).save(folder / "small.png")
    made["small.png"] = Expected("filtered", ("low_resolution",), 1, (128, 72))
    put("a jpeg.png", jpeg + b"trailing", WHOLE)
    put("a png.mp4", png + b"trailing", WHOLE)
    put("a film.jpg", film, Expected("kept", size=SIZE))
    put("zero bytes.png", b"", Expected("quarantined", ("empty",)))
    put("text.png", b"no image\n" * 99, Expected("quarantined", ("not_a_video",)))
    gone = Expected("quarantined", ("truncated",))
    put("cut short.jpg", jpeg[: len(jpeg) // 2], gone)
    put("cut short.png", png[: len(png) // 2], gone)
    put("cut short.webp", webp[: len(webp) // 2], gone)
    put("head only.jpg", jpeg[:20], Expected("quarantined", ("truncated", "decode_error")))
    noise = np.random.default_rng(0).bytes(len(png) - 400)
    put("noise.png", png[:200] + noise + png[-200:], Expected("quarantined", ("decode_error",)))
    bomb = Expected("quarantined", ("too_large",))
    put("bomb.png", png_bomb(50_000, 50_000), bomb)
    animated = (folder / "animated.webp").read_bytes()
    put("bomb.webp", webp_claiming(animated, 1 << 24, 200), bomb)
    return made
