"""Exported models: loaded as saved, refused in one line, and read by transformers too."""

import json
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from infra import artifact
from infra.errors import UserError
from models import exports, weights
from models.autoregressive.loong import ARConfig, LongtakeLlama, Vocabulary
from models.codec import CodecSpec, VideoCodec
from models.tokenizer import CVQConfig, TokenizerConfig, VideoTokenizer

CPU = torch.device("cpu")
TOKENIZER = TokenizerConfig(
    height_px=16,
    width_px=16,
    channels=4,
    channel_multipliers=(1, 1, 1, 1),
    res_blocks=(0, 0, 0, 1),
    middle_blocks=0,
    groups=2,
    codebook=CVQConfig(size=16, dim=4),
)
DECODER = ARConfig(
    vocabulary=Vocabulary(text=60, video=16),
    hidden=64,
    intermediate=96,
    layers=3,
    heads=4,
    kv_heads=2,
    rope_theta=5000.0,
    norm_eps=1e-6,
    init_std=0.1,
)
CONFIGS = [TOKENIZER, DECODER, DECODER.model_copy(update={"tied": True})]


def saved(config: exports.ModelConfig, folder: Path) -> nn.Module:
    torch.manual_seed(0)
    model = exports.build(config)
    exports.save(model, folder)
    return model


@pytest.mark.parametrize("config", CONFIGS)
def test_loads_what_was_saved(config: exports.ModelConfig, tmp_path: Path) -> None:
    model = saved(config, tmp_path)
    loaded = exports.load(str(tmp_path), CPU)
    assert type(loaded) is type(model)
    assert exports.config_of(str(tmp_path)) == config
    assert not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "config.json"}


def test_every_kind_can_be_built() -> None:
    assert {exports.kind_of(config) for config in CONFIGS} == set(exports.KINDS)


def test_a_codec_and_its_spec(tmp_path: Path) -> None:
    saved(TOKENIZER, tmp_path)
    codec: VideoCodec = exports.load_codec(str(tmp_path), CPU)
    spec: CodecSpec = exports.codec_spec(str(tmp_path))
    assert codec.spec == spec
    latents = codec.encode(torch.zeros(1, 3, 5, 16, 16))
    assert tuple(latents.shape[1:]) == spec.latent_shape(5, 16, 16)
    (tmp_path / weights.WEIGHTS_FILE).unlink()
    assert exports.codec_spec(str(tmp_path)) == spec


def test_a_model_that_is_no_codec_is_refused(tmp_path: Path) -> None:
    saved(DECODER, tmp_path)
    for asked in (lambda: exports.codec_spec(str(tmp_path)),
                  lambda: exports.load_codec(str(tmp_path), CPU)):  # fmt: skip
        with pytest.raises(UserError, match="loong_decoder, which is no codec; allowed: video_tok"):
            asked()


def test_filling_checks_kind_and_shape(tmp_path: Path) -> None:
    model = saved(TOKENIZER, tmp_path)
    other = exports.build(TOKENIZER)
    exports.fill(other, str(tmp_path))
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
    with pytest.raises(UserError, match="kind video_tokenizer; allowed is loong_decoder"):
        exports.fill(LongtakeLlama(DECODER), str(tmp_path))
    with torch.device("meta"):
        exports.fill(VideoTokenizer(TOKENIZER), str(tmp_path))
        wider = VideoTokenizer(TOKENIZER.model_copy(update={"channels": 8}))
    with pytest.raises(UserError, match=r"model.safetensors does not fit: misshaped"):
        exports.fill(wider, str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_model_that_was_changed_since_is_refused(name: str, tmp_path: Path) -> None:
    output = artifact.Output(str(tmp_path / "model"), "0" * 16, artifact.State.NEW)
    saved(TOKENIZER, tmp_path / "model")
    artifact.finish(output, "tokenizer", {}, time.monotonic())
    exports.load(output.uri, CPU)
    torch.manual_seed(1)
    other = TOKENIZER.model_copy(update={"commitment_weight": 0.5})
    exports.save(exports.build(other), tmp_path / "other")
    (tmp_path / "other" / name).replace(tmp_path / "model" / name)
    with pytest.raises(UserError, match=f"model/{name}: not the file that this artifact was fin"):
        exports.load(output.uri, CPU)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_check_reads_the_header_alone(config: exports.ModelConfig, tmp_path: Path) -> None:
    saved(config, tmp_path)
    exports.check(str(tmp_path))
    file = tmp_path / weights.WEIGHTS_FILE
    data = file.read_bytes()
    header = 8 + weights.header_bytes(data[:8])
    file.write_bytes(data[:header])
    exports.check(str(tmp_path))
    for cut in (data[:4], data[: header // 2], b""):
        file.write_bytes(cut)
        with pytest.raises(UserError, match=r"model.safetensors: not a safetensors file"):
            exports.check(str(tmp_path))
    file.unlink()
    with pytest.raises(UserError, match=r"model.safetensors: not found"):
        exports.check(str(tmp_path))


def test_bad_configs_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.json: not found"):
        exports.config_of(str(tmp_path))
    file = tmp_path / exports.CONFIG_FILE
    file.write_text(json.dumps({"model": "video_tokenizer", "config": {}}))
    with pytest.raises(UserError, match="not a model export of format 2; one of an earlier"):
        exports.config_of(str(tmp_path))
    file.write_text(json.dumps({"longtake": {"format": 2, "kind": "other", "config": {}}}))
    with pytest.raises(UserError, match="kind 'other'; known are video_tokenizer, loong_decoder"):
        exports.config_of(str(tmp_path))


def test_what_is_not_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Linear has no config of an exported kind"):
        exports.save(nn.Linear(2, 2), tmp_path)


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_transformers_reads_a_decoders_folder_as_the_same_model(tied: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = DECODER.model_copy(update={"tied": tied})
    ours = saved(config, tmp_path).eval()
    for auto in (transformers.LlamaForCausalLM, transformers.AutoModelForCausalLM):
        theirs, told = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(told.values()), told
        assert theirs.dtype == torch.float32
        ids = torch.randint(0, config.vocabulary.total, (2, 33))
        torch.testing.assert_close(ours(ids), theirs.eval()(ids).logits, atol=3e-5, rtol=0)
    again = json.loads((tmp_path / exports.CONFIG_FILE).read_text())
    assert again["vocab_size"] == config.vocabulary.total
    assert again["rope_theta"] == again["rope_parameters"]["rope_theta"] == 5000.0


def test_transformers_refuses_what_is_no_model_of_its_own(tmp_path: Path) -> None:
    """Not a random model of another size, whatever class is asked."""
    transformers = pytest.importorskip("transformers")
    saved(TOKENIZER, tmp_path)
    for cls in (transformers.AutoConfig, transformers.AutoModel, transformers.AutoModelForCausalLM):
        with pytest.raises(ValueError, match="model type `longtake_video_tokenizer` but"):
            cls.from_pretrained(tmp_path)
    for cls in (transformers.LlamaConfig, transformers.LlamaForCausalLM, transformers.ViTModel):
        with pytest.raises(AttributeError, match="longtake video_tokenizer"):
            cls.from_pretrained(tmp_path)
    assert exports.config_of(str(tmp_path)) == TOKENIZER


@pytest.mark.parametrize("kind", [["a"], {"a": 1}, None, "x" * 9999])
def test_a_kind_that_is_none_is_one_line(kind: object, tmp_path: Path) -> None:
    file = tmp_path / exports.CONFIG_FILE
    file.write_text(json.dumps({"longtake": {"format": 2, "kind": kind, "config": {}}}))
    with pytest.raises(UserError, match="known are video_tokenizer, loong_decoder") as caught:
        exports.config_of(str(tmp_path))
    assert len(str(caught.value)) < 600
