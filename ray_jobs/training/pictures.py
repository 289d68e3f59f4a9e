"""Picture grids of validation: frames above their reconstructions."""

import io

import numpy as np
from PIL import Image

GAP_PX = 2
SCALE = 2


def png(rows: list[list[np.ndarray]]) -> bytes:
    """Return a PNG of a grid of frames.

    Args:
        rows: rows of (H, W, 3) uint8 frames, all of one size.
    """
    height, width, _ = rows[0][0].shape
    columns = max(len(row) for row in rows)
    canvas = np.full(
        (len(rows) * (height + GAP_PX) - GAP_PX, columns * (width + GAP_PX) - GAP_PX, 3),
        255,
        np.uint8,
    )
    for r, row in enumerate(rows):
        for c, frame in enumerate(row):
            top, left = r * (height + GAP_PX), c * (width + GAP_PX)
            canvas[top : top + height, left : left + width] = frame
    image = Image.fromarray(canvas)
    image = image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
