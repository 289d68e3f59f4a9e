"""CLIP embeddings of frames and captions, and the ratings of a linear head.

Weights are a directory in the form of the Hugging Face hub's open_clip models, wherever
`models.hub` reads: ``open_clip_config.json`` and a ``.safetensors`` file, or a ``.bin`` that holds
tensors alone; where the config names a tokenizer, ``tokenizer.json`` and perhaps its settings. Only
keys in `_ALLOWED` and `_TOKENIZER_ALLOWED` are taken: others can name code or further downloads.
open_clip sees no other file of the directory. The head is a safetensors file with ``weight`` (1, D)
and ``bias`` (1), D being the size of the model's embedding, as LAION's aesthetic predictor V1 has
them.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
_TOKENIZER = "tokenizer.json"
_TOKENIZER_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
_OTHER_LIBRARIES = "config.json"
_OPTIONAL = (_TOKENIZER, *_TOKENIZER_CONFIGS, _OTHER_LIBRARIES)
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
_TOKENIZER_ALLOWED = {
    "": {"add_bos_token", "add_eos_token", "add_prefix_space", "added_tokens_decoder",
         "additional_special_tokens", "backend", "bos_token", "clean_up_tokenization_spaces",
         "cls_token", "do_basic_tokenize", "do_lower_case", "eos_token", "errors", "extra_ids",
         "extra_special_tokens", "is_local", "keep_accents", "legacy", "lowercase", "mask_token",
         "model_input_names", "model_max_length", "name_or_path", "never_split", "pad_token",
         "padding_side", "processor_class", "sep_token", "spaces_between_special_tokens",
         "special_tokens_map_file", "split_special_tokens", "strip_accents",
         "tokenize_chinese_chars", "tokenizer_class", "truncation_side", "unk_token"},
}  # fmt: skip
"""Keys of a tokenizer's settings that say how it cuts texts, and nothing else."""


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
    (config,) = _found(weights, CONFIG, optional=_OPTIONAL)
    if not hub.is_hub_id(weights):
        _found(weights, _NAMES)
    tree, _ = _read(config)
    width = tree["model_cfg"].get("embed_dim")
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

        file, tensors = _found(weights, CONFIG, _NAMES, optional=_OPTIONAL)
        config, files = _read(file)
        if tensors.suffix != ".safetensors":
            hub.tensors(tensors)  # refuses, in one line, what is more than tensors
        with hub.alone(*files) as folder, _explained(weights):
            model: Any = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
            open_clip.load_checkpoint(model, str(tensors), weights_only=True)
            self._tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
            self._tokenize(["a text"])
            preprocess = {"size": model.visual.image_size, **config.get("preprocess_cfg", {})}
            merged = open_clip.transform.merge_preprocess_dict(
                open_clip.transform.PreprocessCfg(), preprocess
            )
            self._prepare: Any = open_clip.transform.image_transform_v2(
                open_clip.transform.PreprocessCfg(**merged), is_train=False
            )
        self._model = model.to(device).eval()
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


@contextmanager
def _explained(weights: str) -> Iterator[None]:
    """Raise whatever open_clip and transformers raise as one line, and silence their warnings."""
    logging.disable(logging.WARNING)  # of random weights, which are replaced right after
    try:
        yield
    except Exception as error:  # each cause has its own class, from a missing key to a wrong shape
        raise UserError(
            f"{WHAT}.weights: {weights}: open_clip cannot build it ({one_line(error, 200)})"
        ) from None
    finally:
        logging.disable(logging.NOTSET)


def _read(config: Path) -> tuple[dict[str, Any], list[Path]]:
    """Return the config, and it and the tokenizer's files: all that open_clip is to see.

    Raises:
        UserError: one of them holds what is not taken from a file, or is missing.
    """
    beside = {name: config.with_name(name) for name in _OPTIONAL}
    there = {name: file for name, file in beside.items() if file.is_file()}
    try:
        tree = hub.settings(config, _ALLOWED)
        for name in _TOKENIZER_CONFIGS:
            if name in there:
                hub.settings(there[name], _TOKENIZER_ALLOWED)
        if other := there.pop(_OTHER_LIBRARIES, None):
            hub.settings(other)
    except UserError as error:
        raise UserError(f"{WHAT}.weights: {error}") from None
    if "model_cfg" not in tree:
        raise UserError(f"{WHAT}.weights: {config} has no model_cfg; expected {_FORM}")
    if tree["model_cfg"].get("text_cfg", {}).get("hf_tokenizer_name") and _TOKENIZER not in there:
        raise UserError(
            f"{WHAT}.weights: {config} names a tokenizer, but there is no {_TOKENIZER} beside it"
        )
    return tree, [config, *there.values()]
