"""The table of videos: rows come back as they were written, and older tables are refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import UserError
from ray_jobs import video_table


def test_rows_are_read_as_they_were_written(tmp_path, monkeypatch):
    monkeypatch.setattr(video_table, "_ROWS_AT_ONCE", 2)  # several tables, one file
    rows = [
        {
            **dict.fromkeys(video_table.SCHEMA.names),
            "video_id": f"{number:09d}",
            "models": {"planner": "0" * 16, "painter": "1" * 16},
            "settings": {"kind": "toy", "steps": [1, 2], "deep": {"a": None}},
            "joins": [3],
        }
        for number in range(5)
    ]
    assert video_table.write(str(tmp_path), iter(rows)) == video_table.count(str(tmp_path)) == 5
    assert list(video_table.read(str(tmp_path))) == rows


def test_a_table_of_another_version_is_refused_in_one_line(tmp_path):
    old = pa.table({"video_id": ["0"]}).replace_schema_metadata({"longtake.version": "2"})
    pq.write_table(old, tmp_path / "videos.parquet")
    with pytest.raises(UserError, match="version 2; readable is 3: generate the videos anew"):
        list(video_table.read(str(tmp_path)))


def test_names_sort_at_any_count():
    files = [video_table.film_file(f"{n:09d}") for n in (0, 999, 1000, 99_999, 100_000, 10**9 - 1)]
    assert files == sorted(files)
    assert files[2] == "videos/000001/000001000.mp4"
