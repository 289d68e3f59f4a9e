"""Two ranks that share sequences out compute what one rank does, with half of the memory."""

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from models.autoregressive.cache import KVCache
from models.autoregressive.loong import ARConfig, LongtakeLlama, TokenBatch, Vocabulary, build_batch
from models.autoregressive.loong.loss import early_frame_weighted_loss, token_nll

RANKS = 2


@dataclass(frozen=True)
class Case:
    """A model and a batch: prompts of these lengths, clips of this shape."""

    prompts: tuple[int, ...] = (3, 8)
    clip: tuple[int, int, int] = (3, 3, 3)
    heads: int = 4
    kv_heads: int | None = None
    tied: bool = False
    recompute: bool = False
    layers: int = 2

    def config(self) -> ARConfig:
        return ARConfig(
            vocabulary=Vocabulary(text=50, video=24), hidden=48, intermediate=40,
            layers=self.layers, heads=self.heads, kv_heads=self.kv_heads, tied=self.tied,
            init_std=0.2, max_text_tokens=8, max_positions=128,
        )  # fmt: skip

    def model(self) -> LongtakeLlama:
        torch.manual_seed(0)
        model = LongtakeLlama(self.config()).train()
        model.recompute_activations = self.recompute
        return model

    def batch(self) -> TokenBatch:
        draws = torch.Generator().manual_seed(1)
        text = [torch.randint(50, (length,), generator=draws).tolist() for length in self.prompts]
        codes = torch.randint(24, (len(text), *self.clip), generator=draws)
        return build_batch(self.config(), text, codes)


CASES = {
    "odd": Case(),
    "even": Case(prompts=(5,), clip=(2, 3, 3)),
    "shorter than the ranks would like": Case(prompts=(0,), clip=(1, 1, 1)),
    "no video in the first stretch": Case(prompts=(8, 7), clip=(1, 1, 2)),
    "grouped": Case(kv_heads=2),
    "one key-value head": Case(kv_heads=1),
    "key-value heads that do not divide": Case(heads=6, kv_heads=3),
    "tied": Case(tied=True),
    "recomputed": Case(kv_heads=2, recompute=True),
}
LONG = Case(prompts=(5, 5), clip=(3, 5, 7), layers=4)


class Kept:
    """Elements that the backward pass keeps: each tensor's memory once, weights not."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self._held: dict[int, Tensor] = {}

    def __enter__(self) -> "Kept":
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda x: x)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    def _pack(self, x: Tensor) -> Tensor:
        place = x.untyped_storage().data_ptr()
        if place not in self._weights:
            self._held[place] = x
        return x

    def elements(self) -> int:
        sizes = (x.untyped_storage().nbytes() // x.element_size() for x in self._held.values())
        return sum(sizes)


def gradients(case: Case, model: LongtakeLlama) -> tuple[Tensor, dict[str, Tensor]]:
    nll = token_nll(model, case.batch())
    early_frame_weighted_loss(nll, early_frame_weight=1.0, early_latents=2).backward()
    return nll.detach(), {name: p.grad for name, p in model.named_parameters()}  # pyright: ignore


def refusal(call: Callable[[], Any]) -> str:
    try:
        return repr(call())
    except ValueError as error:
        return str(error)


def work_of_rank(rank: int, port: int, folder: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(RANKS)
    )
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    group, _ = dist.new_subgroups(RANKS)
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        model = case.model()
        model.share_sequences(group)
        nll, grads = gradients(case, model)
        for grad in grads.values():
            dist.all_reduce(grad)
            grad /= RANKS
        found[name] = nll, grads
    model = LONG.model()
    model.share_sequences(group)
    with Kept(model) as kept:
        token_nll(model, LONG.batch())
    found["kept"] = kept.elements()
    ids_BS, cache = LONG.batch().ids_BS, KVCache(model.config, 2, 128)
    found["refused"] = [
        refusal(lambda: model.hidden(ids_BS, cache=cache)),
        refusal(lambda: model.hidden(ids_BS, padding_B=torch.tensor([0, 1]))),
        refusal(lambda: Case(heads=3).model().share_sequences(group)),
    ]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ulysses")
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(work_of_rank, (port, str(folder)), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one(shared: list[dict[str, Any]], name: str) -> None:
    nll, grads = gradients(CASES[name], CASES[name].model())
    for found in shared:
        found_nll, found_grads = found[name]
        torch.testing.assert_close(found_nll, nll, rtol=1e-5, atol=1e-5)
        assert found_grads.keys() == grads.keys()
        for key, grad in grads.items():
            torch.testing.assert_close(found_grads[key], grad, rtol=1e-4, atol=1e-6, msg=key)


def test_each_rank_keeps_half_for_the_backward_pass(shared: list[dict[str, Any]]) -> None:
    model = LONG.model()
    with Kept(model) as kept:
        token_nll(model, LONG.batch())
    alone = kept.elements()
    shares = [found["kept"] / alone for found in shared]
    print(f"{alone} elements on one rank; {shares[0]:.3f} and {shares[1]:.3f} of it on two")
    assert all(share == pytest.approx(1 / RANKS, abs=0.05) for share in shares)


def test_what_is_not_shared_out_is_refused(shared: list[dict[str, Any]]) -> None:
    for found in shared:
        cached, padded, heads = found["refused"]
        assert cached == padded == "sequences with a cache or left padding are not shared out"
        assert heads == "heads 3 do not divide over 2 ranks"
