"""The tokenizer with the networks that only its training needs: LPIPS and the discriminator."""

from torch import Tensor

from models.losses.config import PerceptualConfig
from models.losses.lpips import Perceptual
from models.losses.patchgan import Discriminator
from models.tokenizer.config import TokenizerConfig
from models.tokenizer.losses import total_loss
from models.tokenizer.model import TokenizerOutput, VideoTokenizer

PREFIX = "discriminator."


class TrainingTokenizer(VideoTokenizer):
    """A tokenizer whose loss also has the terms that its config asks for.

    Its own parameters have the names that they have in `VideoTokenizer`, so patterns of names mean
    the same, and so does an export, which leaves the discriminator out (`tokenizer_state`).

    Attributes:
        perceptual: None without ``perceptual.weights``. The caller fills it.
        discriminator: None without ``adversarial``.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        """Build all networks; the tokenizer's random weights are those of `VideoTokenizer`."""
        super().__init__(config)
        self.perceptual = None if config.perceptual.weights is None else Perceptual()
        self.discriminator = (
            None if config.adversarial is None else Discriminator(config.adversarial)
        )

    def forward(self, x_BCTHW: Tensor) -> TokenizerOutput:
        """Do what `VideoTokenizer.forward` does, with more losses.

        They are "perceptual", "adversarial" (of the tokenizer), "discriminator" and "lecam" (both
        of the discriminator alone). ``logits`` are the discriminator's means.
        """
        out = super().forward(x_BCTHW)
        losses, logits = dict(out.losses), {}
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(x_BCTHW, out.reconstruction).mean()
        if self.discriminator is not None:
            game = self.discriminator.game(x_BCTHW, out.reconstruction)
            losses["adversarial"] = game.generator
            losses["discriminator"] = game.discriminator
            losses["lecam"] = game.lecam
            logits = {"real_logit": game.real_logit, "fake_logit": game.fake_logit}
        return out._replace(losses=losses, loss=total_loss(losses, self.config), logits=logits)


def for_training(config: TokenizerConfig) -> VideoTokenizer:
    """Return what trains: a plain `VideoTokenizer` where no term asks for more."""
    plain = config.perceptual.weights is None and config.adversarial is None
    return VideoTokenizer(config) if plain else TrainingTokenizer(config)


def tokenizer_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a training state dict that is the tokenizer."""
    return {key: tensor for key, tensor in state.items() if not key.startswith(PREFIX)}


def tokenizer_config(config: TokenizerConfig) -> TokenizerConfig:
    """Return the config of the tokenizer alone, without the networks that judged it."""
    return config.model_copy(update={"perceptual": PerceptualConfig(), "adversarial": None})
