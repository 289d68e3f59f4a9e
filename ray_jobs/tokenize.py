"""Encode clips with a codec into shards of tokens or latents, with their text.

input: a finished artifact of kind `frames`, or of kind `clips`, whose film is then decoded on the
way (`frames={}` for the defaults of that). output: kind `tokens` where the codec has a codebook,
else `latents`: shards, `index.arrow`, and in `failed/` what could not be decoded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import ray
import torch
from pydantic import Field

from data_prep.index import Index
from data_prep.sampling import FrameSettings, WindowConfig
from infra import artifact
from infra.artifact import ArtifactInfo, Output
from infra.config import JobConfig, Uri
from infra.errors import UserError
from infra.job import Job, main
from infra.log import logger
from models import exports, text
from models.codec import CodecSpec, Codes, VideoCodec
from models.evaluation.tokens import unigram_entropy_nats
from models.text import PiecesConfig, TextConfig
from ray_jobs import units
from ray_jobs.frames import SHARD_MB, decoding
from ray_jobs.sharding import parts, plan
from ray_jobs.sharding.encoding import Encoding, TokenMaker
from ray_jobs.sharding.plan import Estimate
from ray_jobs.sharding.source import FilmSource, ShardSource

DECODERS = 4


class TokenizeConfig(JobConfig):
    """Settings of `tokenize`."""

    input_keys: ClassVar[tuple[str, ...]] = ("input", "codec", "text.model")
    not_counted: ClassVar[tuple[str, ...]] = (*JobConfig.not_counted, "decoders")

    codec: Uri
    """A finished artifact of a trained codec."""
    frames: FrameSettings | None = None
    """How clips are decoded, where the input holds clips: needed there, `{}` takes the defaults.
    Frames that are decoded already are taken as they are."""
    windows: Annotated[tuple[WindowConfig, ...], Field(min_length=1)] = (
        WindowConfig(frames=1, stride=16),
        WindowConfig(frames=17, stride=17),
        WindowConfig(frames=65, stride=65),
    )
    """Which windows of a clip are encoded."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Windows of one shape that are encoded at once."""
    text: TextConfig = PiecesConfig()
    """How captions are encoded; what is trained on the shards takes prompts the same way."""
    decoders: Annotated[int, Field(ge=1)] | None = None
    """With GPUs and clips as input: tasks of one CPU each that decode ahead for a worker, so that
    its GPU only encodes; None: 4. Without GPUs a worker decodes itself."""
    shard_mb: SHARD_MB = 128.0
    """Megabytes of a shard before compression, about. A shard is also what a worker does at a time
    and what a kill may cost, so a small corpus wants smaller ones."""


@dataclass(frozen=True)
class Codecs:
    """Where codecs come from; tests hand in others than the exported kinds."""

    spec: Callable[[str], CodecSpec] = exports.codec_spec
    load: Callable[[str, torch.device], VideoCodec] = exports.load_codec


EXPORTED = Codecs()


def plan_lines(config: TokenizeConfig, codecs: Codecs = EXPORTED) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`.

    Raises:
        UserError: bad inputs, or a window or size that the codec does not make.
    """
    info = _input(config)
    clips = info.counts.get("clips", 0)
    spec = codecs.spec(config.codec)
    artifact.read(config.codec)
    if codecs is EXPORTED:
        exports.check(config.codec)
    text.build(config.text)  # refuses a model that is not there
    made = f"{_kind_of(spec)} of {config.codec}"
    lines = [f"{clips} clips ({info.kind}) of {config.input[0]} → {made}"]
    for number, window in enumerate(config.windows):
        _check(f"windows.{number}.frames", lambda w=window: spec.check_frames(w.frames))
        lines.append(f"windows of {window.frames} frames every {window.stride}")
    if info.kind == "clips":
        assert config.frames is not None
        for number, size in enumerate(config.frames.sizes):
            where = f"frames.sizes.{number}"
            _check(where, lambda s=size: spec.check_size(s.height_px, s.width_px))
        lines.append(decoding(config.frames))
    else:
        for _, height, width in Index(config.input[0]).counts():
            _check(f"input {config.input[0]}", lambda h=height, w=width: spec.check_size(h, w))
    return lines


def run(config: TokenizeConfig, output: Output, codecs: Codecs = EXPORTED) -> dict[str, Any]:
    """Write the shards and return the summary."""
    spec = codecs.spec(config.codec)
    encoder = text.build(config.text)
    encoding = Encoding(
        codec_uri=config.codec,
        codec=spec,
        fingerprint=artifact.read(config.codec).identity,
        windows=config.windows,
        batch_size=config.batch_size,
        text=config.text,
        text_spec=encoder.spec,
        threads=max(1, int(config.resources.cpus_per_worker)),
    )
    estimate = Estimate(config.windows, spec)
    if _input(config).kind == "clips":
        assert config.frames is not None
        table = (output.uri, config.input[0], config.frames, estimate)
        made = plan.of_clips(*table, config.shard_mb * 1e6)
        source = FilmSource(*table, _decoders(config))
        fps = config.frames.fps
    else:
        frames = Index(config.input[0])
        made = plan.of_frames(output.uri, frames, estimate, config.shard_mb * 1e6)
        source = ShardSource(output.uri, config.input[0])
        fps = frames.read(0)["fps"][0].as_py()
    if made.parts < config.resources.workers:
        logger.info(
            f"tokenize: {made.parts} parts for {config.resources.workers} workers; a smaller "
            "shard_mb shares the work"
        )
    shards = units.Parts(output.uri, _kind_of(spec), made.parts)
    factory = units.Factory(
        _writer, {"shards": shards, "source": source, "encoding": encoding, "load": codecs.load}
    )
    for _ in units.run(shards, factory, config.resources):
        pass
    account = parts.finish(shards)
    if not account.windows:
        shortest = min(window.frames for window in config.windows)
        raise UserError(
            f"input {config.input[0]}: none of its {account.clips} clips has {shortest} frames at "
            f"{fps:g} fps, as the shortest of windows; give shorter ones"
        )
    said = {"clips_without_windows": account.without_windows, "texts_cut": account.notes["cut"]}
    for name, count in said.items():
        if count:
            logger.info(f"tokenize: {name.replace('_', ' ')}: {count} of {account.clips}")
    return {
        **account.summary(),
        **said,
        "windows": {str(frames): n for frames, n in sorted(account.windows.items())},
        **_code_summary(spec, account),
        "fps": fps,
        **encoding.stated(),
        **({} if encoder.ids is None else {"text_ids": encoder.ids}),
    }


def _writer(
    shards: units.Parts,
    source: FilmSource | ShardSource,
    encoding: Encoding,
    load: Callable[[str, torch.device], VideoCodec],
) -> parts.PartWriter:
    return parts.PartWriter(shards, TokenMaker(encoding, source, load))


def _input(config: TokenizeConfig) -> ArtifactInfo:
    if len(config.input) != 1:
        raise UserError(f"input: {len(config.input)} URIs; allowed is one artifact")
    info = artifact.read(config.input[0], ("clips", "frames"))
    if info.kind == "frames" and config.frames is not None:
        raise UserError(
            f"frames: stated, and the input {config.input[0]} is decoded already; leave it out"
        )
    if info.kind == "clips" and config.frames is None:
        raise UserError(
            f"frames: missing; the input {config.input[0]} holds clips, which are decoded first; "
            "frames={} takes the defaults"
        )
    if config.decoders and not (config.resources.gpus_per_worker and info.kind == "clips"):
        raise UserError(
            f"decoders: {config.decoders}; only allowed with clips as input and gpus_per_worker"
        )
    return info


def _decoders(config: TokenizeConfig) -> int:
    """Return how many tasks decode for a worker; none where that could leave them no CPU."""
    resources = config.resources
    if not resources.gpus_per_worker:
        return 0
    free = ray.cluster_resources().get("CPU", 0) - resources.workers * resources.cpus_per_worker
    if free < 1:
        logger.info("tokenize: no CPU is left beside the workers, so they decode themselves")
        return 0
    return config.decoders or DECODERS


def _check(where: str, check: Callable[[], None]) -> None:
    try:
        check()
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _code_summary(spec: CodecSpec, account: parts.Account) -> dict[str, Any]:
    if not isinstance(spec.latent, Codes):
        return {}
    counts = np.zeros(spec.latent.codebook_size, np.int64)
    for code, count in account.codes.items():
        counts[code] = count
    return {
        "tokens": int(counts.sum()),
        "codebook_size": len(counts),
        "codebook_used": int((counts > 0).sum()),
        "unigram_entropy_nats": float(unigram_entropy_nats(counts)),
    }


def _kind_of(spec: CodecSpec) -> str:
    return "tokens" if isinstance(spec.latent, Codes) else "latents"


def job(codecs: Codecs = EXPORTED) -> Job[TokenizeConfig]:
    """Return the job with codecs from elsewhere than the exported kinds."""

    def kind(config: TokenizeConfig) -> str:
        return _kind_of(codecs.spec(config.codec))

    def plan_of(config: TokenizeConfig) -> list[str]:
        return plan_lines(config, codecs)

    def run_with(config: TokenizeConfig, output: Output) -> dict[str, Any]:
        return run(config, output, codecs)

    return Job("tokenize", kind, TokenizeConfig, plan_of, run_with)


JOB = job()

if __name__ == "__main__":
    main(JOB)
