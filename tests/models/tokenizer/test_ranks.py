"""Two ranks with half the batch each leave the same codebook as one rank with the whole."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from models.common.ranks import world
from models.tokenizer.config import CVQConfig
from models.tokenizer.cvq import ClusteringVQ

CASES = [(anchor, distance) for anchor in ("closest", "probrandom") for distance in ("cos", "l2")]
STEPS = 4


def _batches() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(STEPS, 4, 6, 3, 4, 4, generator=generator)


def _train(anchor: str, distance: str, rank: int, ranks: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    vq = ClusteringVQ(CVQConfig(size=24, dim=6, anchor=anchor, distance=distance))  # type: ignore[arg-type]
    perplexity = torch.zeros(())
    for z in _batches():
        share = len(z) // ranks
        perplexity = vq(z[rank * share : (rank + 1) * share]).perplexity
    return {**vq.state_dict(), "perplexity": perplexity}


def _worker(rank: int, folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    assert world() == (rank, 2)
    results = {case: _train(*case, rank, 2) for case in CASES}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    spawn(_worker, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize(("anchor", "distance"), CASES)
def test_two_ranks_equal_one(two_ranks: list[dict], anchor: str, distance: str) -> None:
    first, second = (results[anchor, distance] for results in two_ranks)
    whole = _train(anchor, distance, rank=0, ranks=1)
    for key, value in whole.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, atol=1e-6, rtol=1e-6)
