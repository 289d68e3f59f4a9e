"""Turn clips into shards: pixels at model resolution, or a tokenizer's codes of them.

input: a finished artifact of kind `clips` or `frames`. Without `tokenizer` the output has kind
`frames` (what tokenizers train on); with one it has kind `tokens` (what autoregressive models
train on). Pixels that are there already are read, not decoded again.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import torch
from pydantic import Field

from data_prep import shards
from data_prep.decode import open_film
from data_prep.decode_process import DecodeError
from data_prep.sampling import (
    TRAIN,
    VALIDATION,
    SizeConfig,
    WindowConfig,
    even_parts,
    held_out,
    nearest,
    window_starts,
)
from infra import artifact, storage
from infra.artifact import Output
from infra.config import JobConfig, Uri
from infra.errors import UserError, one_line
from infra.job import Job, main
from models import exports
from models.codec import Codes
from models.evaluation.tokens import unigram_entropy_nats
from models.pixels import to_pixels
from models.text.pieces import TextTokenizer
from ray_jobs import parts
from ray_jobs.parts import Row


class TokenizeConfig(JobConfig):
    """Settings of `tokenize`."""

    input_keys: ClassVar[tuple[str, ...]] = ("input", "tokenizer")

    tokenizer: Uri | None = None
    """A finished artifact of kind `tokenizer`; None writes pixels."""
    fps: Annotated[float, Field(gt=0, le=240)] = 6.5
    """Frames a second after resampling; 65 frames then cover 10 s (Loong, section 3.1)."""
    sizes: Annotated[tuple[SizeConfig, ...], Field(min_length=1)] = (SizeConfig(),)
    """Several are buckets by aspect: a clip gets the one whose aspect is nearest its own, and
    training draws each batch from one of them."""
    windows: Annotated[tuple[WindowConfig, ...], Field(min_length=1)] = (
        WindowConfig(frames=1, stride=16),
        WindowConfig(frames=17, stride=17),
        WindowConfig(frames=65, stride=65),
    )
    """Which windows of a clip become token sequences. Pixels are not cut."""
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Clips held out, chosen by their ids."""
    max_text_tokens: Annotated[int, Field(ge=0)] = 252
    text_model: str | None = None
    """Path of a SentencePiece model; None: the 32,000-piece model of `mistral-common`."""
    part_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds of clips in a part, about: a shard, and what a kill may cost. At one rate and size
    seconds are bytes, so shards are of even size."""


class PixelWorker:
    """Decodes clips at model resolution; one decoder a video."""

    def __init__(self, config: TokenizeConfig) -> None:
        """Remember the settings."""
        self._config = config

    def rows(self, units: list[Row]) -> Iterator[Row]:
        """Yield a pixel row for each unit (a kept clip)."""
        for uri, clips in groupby(units, key=lambda unit: unit["uri"]):
            yield from self._of_video(uri, list(clips))

    def _of_video(self, uri: str, clips: list[Row]) -> Iterator[Row]:
        c = self._config
        waiting = clips
        while waiting:  # a decoder that failed is not used again
            try:
                with open_film(uri) as decoder:
                    while waiting:
                        clip = waiting[0]
                        span = (clip["start_s"], clip["end_s"])
                        pixels = decoder.span(*span, c.fps, clip["width"], clip["height"])
                        waiting = waiting[1:]
                        yield self._row(clip, pixels)
            except (DecodeError, UserError) as error:
                clip, waiting = waiting[0], waiting[1:]
                detail = {"clip_id": clip["clip_id"], "uri": uri, "detail": one_line(error)}
                yield {"failed": detail}

    def _row(self, clip: Row, pixels: np.ndarray) -> Row:
        frames, height, width, _ = pixels.shape
        return {
            **{
                k: clip[k] for k in ("clip_id", "video_id", "caption", "start_s", "end_s", "motion")
            },
            "split": clip["split"],
            "fps": self._config.fps,
            "frames": frames,
            "height": height,
            "width": width,
            "pixels": pixels.tobytes(),
        }


class StoredPixelWorker:
    """Reads pixel rows that an earlier run of this job wrote."""

    def rows(self, units: list[Row]) -> Iterator[Row]:
        """Yield the rows of each unit (a Parquet file)."""
        for unit in units:
            with storage.open_input(unit["file"]) as source:
                for batch in pq.ParquetFile(source).iter_batches(batch_size=1):
                    yield from batch.to_pylist()


class TokenWorker:
    """Encodes pixel rows with a tokenizer; the model is loaded once an actor."""

    def __init__(self, config: TokenizeConfig, source: PixelWorker | StoredPixelWorker) -> None:
        """Load the tokenizer."""
        assert config.tokenizer is not None
        torch.set_num_threads(max(1, int(config.resources.cpus_per_worker)))
        self._config, self._source = config, source
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer = exports.load_codec(config.tokenizer, self._device)
        self._fingerprint = artifact.read(config.tokenizer).fingerprint
        self._text = TextTokenizer(config.text_model)

    def rows(self, units: list[Row]) -> Iterator[Row]:
        """Yield a token row for each unit that can be read."""
        for row in self._source.rows(units):
            yield row if "failed" in row else self._encode(row)

    def _encode(self, row: Row) -> Row:
        shape = (row["frames"], row["height"], row["width"], 3)
        pixels = np.frombuffer(row["pixels"], np.uint8).reshape(shape)
        windows = []
        for window in self._config.windows:
            for start in window_starts(row["frames"], window):
                x_BCTHW = to_pixels(pixels[None, start : start + window.frames], self._device)
                ids_THW = self._tokenizer.encode(x_BCTHW)[0].cpu().numpy()
                windows.append(
                    {
                        "frames": window.frames,
                        "start_frame": start,
                        "shape": list(ids_THW.shape),
                        "ids": ids_THW.ravel().tolist(),
                    }
                )
        return {
            **{name: row[name] for name in shards.TOKENS.names if name in row},
            "text_ids": self._text.encode(row["caption"], self._config.max_text_tokens),
            "windows": windows,
            "tokenizer_fingerprint": self._fingerprint,
        }


def plan(config: TokenizeConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    source, kind = _source(config)
    makes = f"codes of {config.tokenizer}" if config.tokenizer else "pixels"
    lines = [f"{source.counts.get('clips', 0)} clips ({kind}) of {config.input[0]} → {makes}"]
    if config.tokenizer:
        artifact.read(config.tokenizer, ("tokenizer",))
        lines += [f"windows of {w.frames} frames every {w.stride}" for w in config.windows]
    if kind == "clips":
        sizes = " or ".join(f"{size.width_px}x{size.height_px}" for size in config.sizes)
        lines.append(f"decode to {sizes} at {config.fps:g} frames/s")
    elif not config.tokenizer:
        raise UserError(f"input {config.input[0]}: holds pixels already; give tokenizer=…")
    return lines


def run(config: TokenizeConfig, output: Output) -> dict[str, Any]:
    """Write the shards and return the summary."""
    _, kind = _source(config)
    if kind == "clips":
        cut, source = _parts_of_clips(config), PixelWorker(config)
    else:
        files = storage.list_files(storage.join(config.input[0], "frames"), (".parquet",))
        cut, source = [[{"file": file}] for file in files], StoredPixelWorker()
    if config.tokenizer is None:
        factory = parts.Factory(PixelWorker, {"config": config})
        parts.write(output, "frames", shards.FRAMES, cut, factory, config.resources)
        return _pixel_summary(output)
    factory = parts.Factory(TokenWorker, {"config": config, "source": source})
    parts.write(output, "tokens", shards.TOKENS, cut, factory, config.resources)
    return _token_summary(config, output)


def _source(config: TokenizeConfig) -> tuple[artifact.ArtifactInfo, str]:
    if len(config.input) != 1:
        raise UserError(f"input: {len(config.input)} URIs; allowed is one artifact")
    info = artifact.read(config.input[0], ("clips", "frames"))
    return info, info.kind


def _parts_of_clips(config: TokenizeConfig) -> list[list[Row]]:
    """Cut the kept clips into parts, in an order that the clip table's files do not change."""
    fields = ("clip_id", "start_s", "end_s", "status", "scores.motion", "scores.aspect_ratio")
    inner = [f"clips.list.element.{name}" for name in fields]  # thumbnails stay there
    columns = ["source_id", "video_id", "uri", "caption", "status", *inner]
    videos = [
        row
        for table in parts.scan(config.input[0], "clips", columns)
        for row in table.to_pylist()
        if row["status"] == "kept"
    ]
    units = []
    for video in sorted(videos, key=lambda row: row["source_id"]):
        for clip in video["clips"]:
            if clip["status"] == "kept":
                whole = {k: video[k] for k in ("video_id", "uri", "caption")}
                span = {k: clip[k] for k in ("clip_id", "start_s", "end_s")}
                size = nearest(clip["scores"]["aspect_ratio"], config.sizes)
                shown = {"width": size.width_px, "height": size.height_px}
                units.append({**whole, **span, **shown, "motion": clip["scores"]["motion"]})
    if not units:
        raise UserError(f"input {config.input[0]}: no clip was kept; see its summary.json")
    validation = held_out((unit["clip_id"] for unit in units), config.validation_share)
    for unit in units:
        unit["split"] = VALIDATION if unit["clip_id"] in validation else TRAIN
    numbers = even_parts([unit["end_s"] - unit["start_s"] for unit in units], config.part_s)
    parted = groupby(zip(numbers, units, strict=True), key=lambda pair: pair[0])
    return [[unit for _, unit in part] for _, part in parted]


def _pixel_summary(output: Output) -> dict[str, Any]:
    clips = frames = 0
    splits = {TRAIN: 0, VALIDATION: 0}
    sizes = Counter[str]()
    for table in parts.scan(output.uri, "frames", ["split", "frames", "height", "width"]):
        clips += table.num_rows
        frames += int(table["frames"].to_numpy().sum())
        for split in table["split"].to_pylist():
            splits[split] += 1
        shown = zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True)
        sizes.update(f"{width}x{height}" for width, height in shown)
    return {
        "clips": clips,
        "frames": frames,
        "sizes": dict(sorted(sizes.items())),
        **splits,
        "failed": parts.failures(output),
    }


def _token_summary(config: TokenizeConfig, output: Output) -> dict[str, Any]:
    assert config.tokenizer is not None
    latent = exports.codec_spec(config.tokenizer).latent
    assert isinstance(latent, Codes)
    size = latent.codebook_size
    counts = np.zeros(size, dtype=np.int64)
    windows: dict[str, int] = {}
    clips = 0
    for table in parts.scan(output.uri, "tokens", ["windows"]):
        clips += table.num_rows
        flat = table["windows"].combine_chunks().flatten()
        counts += np.bincount(flat.field("ids").flatten().to_numpy(), minlength=size)
        for frames, count in Counter(flat.field("frames").to_pylist()).items():
            windows[str(frames)] = windows.get(str(frames), 0) + count
    return {
        "clips": clips,
        "windows": windows,
        "tokens": int(counts.sum()),
        "codebook_size": size,
        "codebook_used": int((counts > 0).sum()),
        "unigram_entropy_nats": float(unigram_entropy_nats(counts)),
        "failed": parts.failures(output),
    }


def _kind(config: TokenizeConfig) -> str:
    return "tokens" if config.tokenizer else "frames"


JOB = Job("tokenize", _kind, TokenizeConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
