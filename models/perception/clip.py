"""CLIP: frames and captions in one space, and what a linear head makes of frames.

Weights are a directory in the form of the Hugging Face hub's open_clip models, or the id of one:
``open_clip_config.json`` and a ``.safetensors`` file. The head is a safetensors file with
``weight`` (1, D) and ``bias`` (1), D being the size of the model's embedding, as LAION's aesthetic
predictor V1 has them.
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
from models import weights as files
from models.perception.batches import fixed

WHAT = "stages.clip"
CONFIG = "open_clip_config.json"
_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_FORM = f"a directory with {CONFIG} and a .safetensors file, or a hub id of one"


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
    if Path(weights).is_dir():
        _safetensors(Path(weights))
        config = Path(weights) / CONFIG
    else:
        config = _fetch(weights, CONFIG)
    width = _read(config)["model_cfg"].get("embed_dim")
    if head is not None:
        shapes = {key: tuple(tensor.shape) for key, tensor in files.load_state(Path(head)).items()}
        if shapes != {"weight": (1, width), "bias": (1,)}:
            raise UserError(
                f"{WHAT}.head: {head} holds {shapes}; expected weight (1, {width}) and bias (1,)"
            )


def folder_of(weights: str) -> Path:
    """Return the directory that holds the weights, fetched from the hub where it is an id."""
    if Path(weights).is_dir():
        return Path(weights)
    config = _fetch(weights, CONFIG)
    _fetch(weights, _NAMES[0])
    if "hf_tokenizer_name" in _read(config)["model_cfg"].get("text_cfg", {}):
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            _fetch(weights, name)
    return config.parent


def fingerprint(weights: str) -> str:
    """Return 16 hex digits of the sha256 of the weights."""
    return files.fingerprint(_safetensors(folder_of(weights)))


def head_fingerprint(head: str) -> str:
    """Return 16 hex digits of the sha256 of a head's weights."""
    return files.fingerprint(Path(head))


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

        folder = folder_of(weights)
        config = _read(folder / CONFIG)
        logging.disable(logging.WARNING)  # it warns of the random weights that are replaced below
        model: Any = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        logging.disable(logging.NOTSET)
        open_clip.load_checkpoint(model, str(_safetensors(folder)))
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
        self._head = _load_head(Path(head), device) if head else None
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
    state = files.load_state(file)
    head = nn.Linear(state["weight"].shape[1], 1)
    files.load_into(head, file)
    return head.to(device).eval()


def _safetensors(folder: Path) -> Path:
    """Return the weights in a directory; files that would be unpickled are passed over."""
    there = [folder / name for name in _NAMES if (folder / name).is_file()]
    found = there or sorted(folder.glob("*.safetensors"))
    if not found:
        raise UserError(f"{WHAT}.weights: {folder} has no .safetensors file; expected {_FORM}")
    return found[0]


def _read(config: Path) -> dict[str, Any]:
    try:
        tree = json.loads(config.read_bytes())
    except OSError:
        raise UserError(f"{WHAT}.weights: {config} not found; expected {_FORM}") from None
    except ValueError as error:
        raise UserError(f"{WHAT}.weights: {config} is not JSON: {one_line(error)}") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("model_cfg"), dict):
        raise UserError(f"{WHAT}.weights: {config} has no model_cfg; expected {_FORM}")
    return tree


def _fetch(hub_id: str, name: str) -> Path:
    """Return a file of the hub, from its cache when it is there."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_id.removeprefix("hf-hub:"), name))
    except Exception as error:  # each cause has its own class, from no network to no such id
        raise UserError(
            f"{WHAT}.weights: {hub_id} is no directory, and as a hub id its {name} cannot be "
            f"fetched ({one_line(error, 120)}); give {_FORM}"
        ) from None
