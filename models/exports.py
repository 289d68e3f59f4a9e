"""Saving and loading of exported models: ``model.safetensors`` and ``config.json`` in a folder.

A new kind of model adds its config to `KINDS` and a case to `build`, and to `load_codec` when it is
a codec. ``config.json`` holds

    {"longtake": {"format": 2, "kind": "video_tokenizer", "config": {...}}, ...}

and beside ``longtake`` what other libraries look for, so that transformers' ``from_pretrained``
reads the folder of a LLaMA decoder as the same model. Every other kind is refused there: without
these keys the classes of transformers build a random model of their default size.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infra import artifact, fingerprints, storage
from infra import config as configs
from infra.errors import UserError, one_line
from models import weights
from models.autoregressive.loong.config import ARConfig
from models.autoregressive.loong.model import LongtakeLlama
from models.codec import CodecSpec, VideoCodec
from models.tokenizer.config import TokenizerConfig
from models.tokenizer.model import VideoTokenizer

FORMAT = 2
CONFIG_FILE = "config.json"

ModelConfig = TokenizerConfig | ARConfig
KINDS: dict[str, type[ModelConfig]] = {
    "video_tokenizer": TokenizerConfig,
    "loong_decoder": ARConfig,
}
"""Every kind of model that is exported, and what it is built from."""
CODECS = ("video_tokenizer",)
"""The kinds that are codecs."""


def build(config: ModelConfig) -> nn.Module:
    """Return a fresh model of a config."""
    match config:
        case TokenizerConfig():
            return VideoTokenizer(config)
        case ARConfig():
            return LongtakeLlama(config)


def save(model: nn.Module, folder: Path) -> None:
    """Write a model's parameters and buffers, and its ``config``, each file by temp and rename.

    Args:
        model: one that `build` makes; tensors go to disk contiguous, in their own dtype.
        folder: made when missing.
    """
    save_state(model.state_dict(), _config_of_model(model), folder)


def save_state(state: dict[str, Tensor], config: ModelConfig, folder: Path) -> None:
    """Do the same for a state dict; see :func:`save`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights.save(state, folder / weights.WEIGHTS_FILE)
    stated = {"format": FORMAT, "kind": kind_of(config), "config": config.model_dump(mode="json")}
    tree = {"longtake": stated, **_for_other_libraries(config, state)}
    partial = folder / (CONFIG_FILE + ".tmp")
    partial.write_text(json.dumps(tree, indent=1) + "\n")
    os.replace(partial, folder / CONFIG_FILE)


def load(uri: str, device: torch.device) -> nn.Module:
    """Return the model at `uri`, ready for inference.

    Args:
        uri: a finished artifact, or any place with the two files.
        device: where it will be.

    Raises:
        UserError: no exported model is there, its weights do not fit its config, or they are not
            those that the artifact was finished with.
    """
    model = build(config_of(uri))
    fill(model, uri)
    return model.to(device).eval()


def load_codec(uri: str, device: torch.device) -> VideoCodec:
    """Return the codec at `uri`, ready to encode and decode; see :func:`load`.

    Raises:
        UserError: as `load`, or the model is no codec.
    """
    match model := load(uri, device):
        case VideoTokenizer():
            return model
    raise _no_codec(uri, _config_of_model(model))


def codec_spec(uri: str) -> CodecSpec:
    """Return the spec of the codec at `uri`; reads ``config.json`` only.

    Raises:
        UserError: no exported model is there, or it is no codec.
    """
    match config := config_of(uri):
        case TokenizerConfig():
            return config.codec_spec
    raise _no_codec(uri, config)


def config_of(uri: str) -> ModelConfig:
    """Return the config of the model at `uri`.

    Raises:
        UserError: ``config.json`` is missing, of another format, or of an unknown kind.
    """
    file = storage.join(uri, CONFIG_FILE)
    tree = storage.read_json(file)
    artifact.check_weights(uri, CONFIG_FILE, fingerprints.sha256(file))
    stated = tree.get("longtake") if isinstance(tree, dict) else None
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise UserError(
            f"{file}: not a model export of format {FORMAT}; one of an earlier version "
            "has to be trained anew"
        )
    kind = stated.get("kind")
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(stated.get("config"), dict):
        raise UserError(
            f"{file}: a model of kind {one_line(repr(kind), 60)}; known are {', '.join(KINDS)}"
        )
    return configs.build(KINDS[kind], stated["config"])


def kind_of(config: ModelConfig) -> str:
    """Return a config's name in `KINDS`."""
    for kind, of_kind in KINDS.items():
        if type(config) is of_kind:
            return kind
    raise ValueError(f"config of type {type(config).__name__}: known are {', '.join(KINDS)}")


def fill(model: nn.Module, uri: str) -> None:
    """Fill a model from an exported one; on the meta device only check that it fits.

    Args:
        model: one that `build` makes.
        uri: as :func:`load`.

    Raises:
        UserError: another kind of model is there, or one of another shape.
    """
    kind, wanted = kind_of(config_of(uri)), kind_of(_config_of_model(model))
    if kind != wanted:
        raise UserError(f"{uri}: holds a model of kind {kind}; allowed is {wanted}")
    file = storage.join(uri, weights.WEIGHTS_FILE)
    if next(model.parameters()).is_meta:
        check_fits(model.state_dict(), file)
        return
    with storage.local_copy(file) as copy:
        artifact.check_weights(uri, weights.WEIGHTS_FILE, fingerprints.sha256(str(copy)))
        weights.load_into(model, copy)


def check(uri: str) -> None:
    """Raise UserError unless :func:`load` could load what is at `uri`; reads no weights."""
    with torch.device("meta"):
        model = build(config_of(uri))
    fill(model, uri)


def check_fits(wanted: dict[str, Tensor], uri: str) -> None:
    """Raise UserError unless a safetensors file has the tensors of `wanted`; reads its header."""
    with storage.open_input(uri) as stream:
        header = stream.read(weights.header_bytes(stream.read(8)))
    weights.check_fits(wanted, header, uri)


def _config_of_model(model: nn.Module) -> ModelConfig:
    config = getattr(model, "config", None)
    if not isinstance(config, ModelConfig):
        raise ValueError(f"{type(model).__name__} has no config of an exported kind")
    return config


def _no_codec(uri: str, config: ModelConfig) -> UserError:
    return UserError(
        f"{uri}: holds a model of kind {kind_of(config)}, which is no codec; "
        f"allowed: {', '.join(CODECS)}"
    )


def _for_other_libraries(config: ModelConfig, state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the keys of ``config.json`` that make the folder loadable elsewhere."""
    match config:
        case ARConfig():
            dtype = str(next(iter(state.values())).dtype).removeprefix("torch.")
            return {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "dtype": dtype,
                "rope_theta": config.rope_theta,  # where transformers before 5 looks
                **config.transformers_config(),
            }
        case TokenizerConfig():
            kind = kind_of(config)
            refused = f"longtake {kind} (no model of transformers)"  # no type of torch's: it stops
            return {"model_type": f"longtake_{kind}", "dtype": refused, "torch_dtype": refused}
