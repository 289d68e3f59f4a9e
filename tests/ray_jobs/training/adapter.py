"""A toy model of a large frozen base below a small part that trains."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_prep.sample import Sample
from infra.errors import UserError
from ray_jobs.training.config import StageConfig
from ray_jobs.training.initial import InitialConfig
from ray_jobs.training.task import Judgement, State, StepLoss
from tests.ray_jobs.training.runs import Kind, patches

WIDTH = 2048


class Adapter(nn.Module):
    """A base of 200,000 weights; 500 that train, and one that trains in no stage of the tests."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Sequential(nn.Linear(48, WIDTH), nn.GELU(), nn.Linear(WIDTH, 48))
        self.register_buffer("scale", torch.ones(()))
        self.adapter = nn.Sequential(nn.Linear(48, 4), nn.GELU(), nn.Linear(4, 48))
        self.gate = nn.Parameter(torch.rand(48))

    def forward(self, x_BNP: Tensor) -> Tensor:
        return self.base(x_BNP) + self.gate * self.adapter(x_BNP)


class AdapterTask:
    """The next frame's patches from this one's."""

    unit = "frames"
    frozen: tuple[str, ...] = ("base.*",)

    def build(self) -> Adapter:
        return Adapter()

    def loss(self, model: nn.Module, samples: list[Sample], stage: StageConfig) -> StepLoss:
        x_BTNP = torch.stack([patches(each.data).unflatten(0, (5, -1)) for each in samples])
        x_BTNP = x_BTNP.to(next(model.parameters()).dtype)
        loss = F.mse_loss(model(x_BTNP[:, :-1].flatten(1, 2)), x_BTNP[:, 1:].flatten(1, 2))
        return StepLoss(loss, {"mse": loss.detach()}, 5 * len(samples))

    def validate(self, model: nn.Module, samples: list[Sample], stage: StageConfig) -> Judgement:
        return Judgement({"mse": float(self.loss(model, samples, stage).loss)})

    def inherit(
        self,
        state: State,
        before: Sequence[StageConfig],
        stage: StageConfig,
        initial: InitialConfig | None,
    ) -> State:
        return state

    def export(self, state: State, folder: str) -> None:
        Path(folder).mkdir(exist_ok=True)
        save_file(state, Path(folder, "model.safetensors"))

    def load(self, model: nn.Module, initial: InitialConfig) -> None:
        if initial.how != "base":
            raise UserError(f"initial.how: {initial.how}; allowed for this model is base")
        assert isinstance(model, Adapter)
        model.base.load_state_dict(load_file(Path(initial.uri, "model.safetensors")))


ADAPTER = Kind(AdapterTask, "frames", StageConfig, trainable=("adapter.*",))


def write_base(folder: Path) -> InitialConfig:
    """Write weights of a base, which are not those that a fresh model has."""
    torch.manual_seed(99)
    folder.mkdir()
    save_file(Adapter().base.state_dict(), folder / "model.safetensors")
    return InitialConfig.model_validate({"from": str(folder), "how": "base"})
