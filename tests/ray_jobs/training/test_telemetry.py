"""The log: its lines stand in order of steps, whenever they come."""

import json
from pathlib import Path

from ray_jobs.training.sinks import Lines
from ray_jobs.training.telemetry import Telemetry


def test_a_late_line_stands_where_its_step_is(tmp_path: Path) -> None:
    places = [(1, "train"), (2, "train"), (1, "validation"), (3, "train"), (3, "validation")]
    made = [{"step": step, "split": split, "loss": 1.0} for step, split in places]
    log = Telemetry(made[:1], [Lines(str(tmp_path))])
    for record in made[1:]:
        log.write(record)
    assert log.flush() == [made[place] for place in (0, 2, 1, 3, 4)]
    written = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == log.flush()
