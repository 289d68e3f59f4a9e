"""Shape of the LLaMA decoder, and the three sizes of Loong (sec. 4.1, table 1)."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from infra.config import Section
from models.autoregressive.loong.vocabulary import Vocabulary


class ARConfig(Section):
    """Shape of `LongtakeLlama`. The defaults are Loong's 7B."""

    vocabulary: Vocabulary = Vocabulary()
    hidden: Annotated[int, Field(ge=2)] = 4096
    """Width of the residual stream; a multiple of 2 * heads."""
    intermediate: Annotated[int, Field(ge=1)] = 11_008
    """Width inside the SwiGLU MLP."""
    layers: Annotated[int, Field(ge=1)] = 32
    heads: Annotated[int, Field(ge=1)] = 32
    """Query heads."""
    kv_heads: Annotated[int, Field(ge=1)] | None = None
    """Key and value heads, a divisor of heads; None means as many as query heads."""
    rope_theta: Annotated[float, Field(gt=0)] = 10_000.0
    """Base of the wavelengths of the rotary positions."""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    init_std: Annotated[float, Field(gt=0)] = 0.02
    """Standard deviation of the initial weights."""
    tied: bool = False
    """Share the embedding table with the output head."""
    max_text_tokens: Annotated[int, Field(ge=0)] = 252
    """Longer prompts lose their end, in training and in generation."""
    max_positions: Annotated[int, Field(ge=1)] = 4608
    """Longest sequence. The default holds 17*256 video, 4 special and 252 text tokens."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError(
                f"hidden {self.hidden} must be a multiple of 2 * heads = {2 * self.heads}: "
                "rotary positions turn pairs of channels"
            )
        if self.heads % self.key_value_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        return self

    @property
    def key_value_heads(self) -> int:
        """Number of key and value heads, with None resolved."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.hidden // self.heads

    def transformers_config(self) -> dict[str, Any]:
        """The keyword arguments of `transformers.LlamaConfig` that describe the same model."""
        return {
            "vocab_size": self.vocabulary.total,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "rms_norm_eps": self.norm_eps,
            "initializer_range": self.init_std,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": self.max_positions,
            "pad_token_id": self.vocabulary.pad,
            "bos_token_id": self.vocabulary.begin_of_text,
            "eos_token_id": self.vocabulary.end_of_video,
            "attention_bias": False,
            "mlp_bias": False,
            "hidden_act": "silu",
        }


LOONG_7B = ARConfig()
"""6.81B parameters."""

LOONG_3B = ARConfig(hidden=3200, intermediate=8704, layers=24, heads=25)
"""3.25B parameters. The paper gives only the size; heads are of 128 channels and the MLP width
follows LLaMA's rule (8/3 of hidden, rounded up to a multiple of 256), as in its 7B."""

LOONG_700M = ARConfig(hidden=1280, intermediate=3456, layers=36, heads=20)
"""817M parameters. The paper gives only the size."""
