"""Config of the models that look at clips, and of what each may use of the cluster."""

from typing import Annotated

from pydantic import Field

from infra.config import Section
from models.hub import WeightsUri


class Stage(Section):
    """What every model's stage has."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Actors that hold the model."""
    num_cpus: Annotated[float, Field(gt=0)] = 0.25
    """CPUs that Ray sets aside for each; it uses as many threads, but at least one."""
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs for each; a fraction shares one."""

    @property
    def threads(self) -> int:
        """How many threads the model may use on the CPU."""
        return max(1, int(self.num_cpus))


class BatchedStage(Stage):
    """A model that looks at many frames at once."""

    batch_frames: Annotated[int, Field(ge=1, le=1024)] = 16
    """Frames that go through the model at once, of whatever videos."""


class ClipStage(BatchedStage):
    """CLIP: similarity to the caption, and with a head the aesthetic score."""

    weights: WeightsUri | None = None
    """A directory with open_clip_config.json and a .safetensors file, or a hub id of one."""
    head: WeightsUri | None = None
    """A safetensors file with the linear head `weight`, `bias`; None gives no aesthetic score."""


class StagesConfig(Section):
    """The models, each off until one of its keys is stated; `stages.text={}` takes the defaults."""

    safety: BatchedStage | None = None
    """open_nsfw (extra `safety`, weights in the package)."""
    text: Stage | None = None
    """PP-OCR's text detector (extra `text`, weights in the package)."""
    clip: ClipStage | None = None
    """An open_clip model; its weights are in no package."""

    def check(self) -> None:
        """Raise UserError when what a stage needs is not there."""
        from models.perception import (  # not where a config is only carried to
            clip,
            text_boxes,
            unsafe,
        )

        if self.safety:
            unsafe.check(self.safety.num_gpus)
        if self.text:
            text_boxes.check(self.text.num_gpus)
        if self.clip:
            clip.check(self.clip.weights, self.clip.head)

    @property
    def on(self) -> dict[str, Stage]:
        """The stages to run by name, in order."""
        named = {"safety": self.safety, "text": self.text, "clip": self.clip}
        return {name: stage for name, stage in named.items() if stage is not None}

    def weights(self) -> dict[str, str]:
        """Return metadata that says by which weights the scores were made."""
        from models.perception import clip

        if self.clip is None or self.clip.weights is None:
            return {}
        made = {"longtake.clip_weights": clip.fingerprint(self.clip.weights)}
        if self.clip.head is not None:
            made["longtake.aesthetic_head"] = clip.head_fingerprint(self.clip.head)
        return made
