"""CLIP embeddings of frames and captions, and the ratings of a linear head.

Weights are a directory in the form of the Hugging Face hub's open_clip models, wherever
`models.hub` reads: ``open_clip_config.json`` and a ``.safetensors`` file, or a ``.bin`` that holds
tensors alone. Of the config only the keys in `_ALLOWED` are taken: others can name code or further
downloads. The head is a safetensors file with ``weight`` (1, D) and ``bias`` (1), D being the size
of the model's embedding, as LAION's aesthetic predictor V1 has them.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from infra.errors import UserError, one_line
from models import hub
from models import weights as files
from models.perception.batches import fixed

WHAT = "stages.clip"
CONFIG = "open_clip_config.json"
_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "*.safetensors",
    "open_clip_pytorch_model.bin",
)
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_FORM = f"a directory with {CONFIG} and a .safetensors file, or a hub id of one"
_TOWER = {"layers", "width", "mlp_ratio", "ls_init_value", "final_ln_after_pool", "pool_type",
          "output_tokens", "act_kwargs", "norm_kwargs", "block_type", "qk_norm",
          "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn",
          "scale_fc"}  # fmt: skip
_ALLOWED = {
    "": {"model_cfg", "preprocess_cfg"},
    "preprocess_cfg": {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"},
    "model_cfg": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text",
                  "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"},
    "model_cfg.vision_cfg": _TOWER | {
        "head_width", "patch_size", "image_size", "patch_dropout", "attentional_pool",
        "attn_pooler_queries", "attn_pooler_heads", "no_ln_pre", "pos_embed_type"},
    "model_cfg.text_cfg": _TOWER | {
        "context_length", "vocab_size", "heads", "embed_cls", "pad_id", "eos_id", "no_causal_mask",
        "proj_bias", "proj_type", "hf_tokenizer_name", "tokenizer_kwargs"},
    "model_cfg.text_cfg.tokenizer_kwargs": {"clean", "strip_sep_token", "language"},
}  # fmt: skip
"""Keys of a config that describe shapes and nothing else, by the section that they are in."""


def check(weights: str | None, head: str | None) -> None:
    """Raise UserError when what the model needs is not there; of a hub id, the config is fetched.

    Args:
        weights: a directory or a hub id.
        head: a file, or None for no ratings.
    """
    if weights is None:
        raise UserError(
            f"{WHAT}.weights: none given, and no package has them; give {_FORM}, such as "
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
        )
    (config,) = _found(weights, CONFIG)
    if not hub.is_hub_id(weights):
        _found(weights, _NAMES)
    width = _read(config)["model_cfg"].get("embed_dim")
    if head is not None:
        state = hub.tensors(hub.local_file(head))
        shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        if shapes != {"weight": (1, width), "bias": (1,)}:
            raise UserError(
                f"{WHAT}.head: {head} holds {shapes}; expected weight (1, {width}) and bias (1,)"
            )


def fingerprint(weights: str) -> str:
    """Return 16 hex digits of the sha256 of the weights."""
    return files.fingerprint(*_found(weights, _NAMES))


def head_fingerprint(head: str) -> str:
    """Return 16 hex digits of the sha256 of a head's weights."""
    return files.fingerprint(hub.local_file(head))


class Clip:
    """A model and perhaps a head, in one process.

    Args:
        weights: as :func:`check` has it.
        head: as :func:`check` has it.
        device: where to run.
        batch_frames: frames or captions that go through the model at once.
    """

    def __init__(
        self, weights: str, head: str | None, device: torch.device, batch_frames: int
    ) -> None:
        import open_clip

        file, tensors = _found(weights, CONFIG, _NAMES, optional=_TOKENIZER)
        config, folder = _read(file), file.parent
        _check_tokenizer(folder)
        logging.disable(logging.WARNING)  # it warns of the random weights that are replaced below
        model: Any = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        logging.disable(logging.NOTSET)
        if tensors.suffix != ".safetensors":
            hub.tensors(tensors)  # refuses, in one line, what is more than tensors
        open_clip.load_checkpoint(model, str(tensors), weights_only=True)
        self._model = model.to(device).eval()
        self._tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        size = self._model.visual.image_size
        preprocess = {"size": size, **config.get("preprocess_cfg", {})}
        merged = open_clip.transform.merge_preprocess_dict(
            open_clip.transform.PreprocessCfg(), preprocess
        )
        self._prepare: Any = open_clip.transform.image_transform_v2(
            open_clip.transform.PreprocessCfg(**merged), is_train=False
        )
        self._head = _load_head(hub.local_file(head), device) if head else None
        self._none = torch.empty((0, config["model_cfg"]["embed_dim"]), device=device)
        self._device, self._batch_frames = device, batch_frames

    @torch.inference_mode()
    def embed(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Return the unit embeddings of uint8 RGB frames (H, W, 3): float32 (frames, D)."""
        from PIL import Image

        found = [self._none]
        for batch, count in fixed(frames, self._batch_frames):
            x_BCHW = torch.stack([self._prepare(Image.fromarray(frame)) for frame in batch])
            found.append(self._unit(self._model.encode_image(x_BCHW.to(self._device)))[:count])
        return torch.cat(found)

    @torch.inference_mode()
    def embed_texts(self, captions: Sequence[str]) -> Tensor:
        """Return the unit embeddings of captions: float32 (captions, D)."""
        found = [self._none]
        for batch, count in fixed(captions, self._batch_frames):
            ids = self._tokenize(batch).to(self._device)
            found.append(self._unit(self._model.encode_text(ids))[:count])
        return torch.cat(found)

    @torch.inference_mode()
    def ratings(self, embeddings_ND: Tensor) -> list[float] | None:
        """Return what the head makes of each embedding, or None when there is no head."""
        return None if self._head is None else self._head(embeddings_ND)[:, 0].tolist()

    @staticmethod
    def _unit(x_ND: Tensor) -> Tensor:
        return functional.normalize(x_ND.float(), dim=-1)


def _load_head(file: Path, device: torch.device) -> nn.Linear:
    state = hub.tensors(file)
    head = nn.Linear(state["weight"].shape[1], 1)
    head.load_state_dict(state)
    return head.to(device).eval()


def _found(weights: str, *names: str | tuple[str, ...], optional: Sequence[str] = ()) -> list[Path]:
    try:
        return hub.local_files(weights, *names, optional=optional)
    except UserError as error:
        raise UserError(f"{WHAT}.weights: {error}; expected {_FORM}") from None


def _read(config: Path) -> dict[str, Any]:
    try:
        tree = json.loads(config.read_bytes())
    except ValueError as error:
        raise UserError(f"{WHAT}.weights: {config} is not JSON: {one_line(error)}") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("model_cfg"), dict):
        raise UserError(f"{WHAT}.weights: {config} has no model_cfg; expected {_FORM}")
    _check_keys(config, tree, "")
    return tree


def _check_keys(file: Path, tree: dict[str, Any], section: str) -> None:
    """Refuse what may name code or a download, wherever in the config it is."""
    for key, value in tree.items():
        below = f"{section}.{key}" if section else key
        if key not in _ALLOWED[section]:
            raise UserError(f"{WHAT}.weights: {file} has {below}, which is not taken from a file")
        if isinstance(value, dict) and below in _ALLOWED:
            _check_keys(file, value, below)


def _check_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    if file.is_file() and "auto_map" in json.loads(file.read_bytes()):
        raise UserError(f"{WHAT}.weights: {file} has auto_map, which names code; it is not run")
