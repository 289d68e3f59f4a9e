"""Records of finished trials, from which a killed sweep resumes."""

from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from ray import tune

from infra import storage
from infra.artifact import Output
from infra.errors import one_line
from infra.log import logger
from tuning import report
from tuning.config import SweepConfig
from tuning.space import ARM, SEED, Point, name_of

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
REFUSED = "refused"
"""Key of a last report that says why a trial cannot be."""


@dataclass
class Record:
    """What a trial came to."""

    name: str
    point: Point
    state: str
    """`finished`, `stopped` (early, or by the budget), or `failed`."""
    objective: float | None
    steps: int
    seconds: float
    figures: dict[str, float] = field(default_factory=dict)
    """Everything that it reported last."""
    error: str = ""


@dataclass(frozen=True)
class Best:
    """The best arm or point."""

    records: list[Record]
    """One a seed, in the order of names."""
    objective: float
    """Their mean."""


class Records(tune.Callback):
    """Writes a record when a trial ends, says how things stand, and watches the budget."""

    def __init__(self, config: SweepConfig, output: Output, figures: tuple[str, ...]) -> None:
        self._config, self._output, self._figures = config, output, figures
        self._last: dict[str, dict[str, Any]] = {}
        self.known: dict[str, Record] = {}
        self.lost: dict[str, str] = {}
        """Trials that ended without a word, by name, and why."""
        for file in storage.list_files(output.path("records"), (".json",)):
            record = Record(**storage.read_json(file))
            self.known[record.name] = record

    def all(self) -> list[Record]:
        """Return every trial that has ended, in the order of names."""
        return [self.known[name] for name in sorted(self.known)]

    def best(self) -> Best | None:
        """Return the best of what ran to its end; with seeds, of what did with all of them."""
        seeds = self._config.seeds or (self._config.seed,)
        groups: dict[str, list[Record]] = {}
        for record in self.all():
            if record.state == FINISHED and record.objective is not None:
                variant = {k: v for k, v in record.point.items() if k != SEED}
                groups.setdefault(name_of(variant), []).append(record)
        sign = 1 if self._config.mode == "min" else -1
        whole = [
            Best(group, fmean(record.objective or 0.0 for record in group))
            for group in groups.values()
            if len(group) == len(seeds)
        ]
        return min(whole, key=lambda best: sign * best.objective, default=None)

    def by_arm(self) -> dict[str, dict[int, dict[str, float]]]:
        """Return the figures of all trials that ended, by arm and seed."""
        found: dict[str, dict[int, dict[str, float]]] = {arm: {} for arm in self._config.arms}
        for record in self.all():
            if record.state == FINISHED:
                seed = record.point.get(SEED, self._config.seed)
                found[record.point[ARM]][seed] = record.figures
        return found

    def spent(self) -> bool:
        """Return whether the budget of steps or hours is used up."""
        budget, records = self._config.budget, self.known.values()
        steps = sum(r.steps for r in records) + sum(
            int(figures.get("step", 0))
            for name, figures in self._last.items()
            if name not in self.known
        )
        hours = (sum(r.seconds for r in records) / self._config.trials_at_once) / 3600
        return bool(
            (budget.steps and steps >= budget.steps) or (budget.hours and hours >= budget.hours)
        )

    def left_s(self) -> float | None:
        """Return the seconds of wall time that are left; None without such a budget."""
        hours = self._config.budget.hours
        if hours is None:
            return None
        used = sum(record.seconds for record in self.known.values()) / self._config.trials_at_once
        return max(hours * 3600 - used, 1.0)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict, **info: Any
    ) -> None:
        """Remember what a trial said last."""
        point = point_of(trial.config)
        self._last[name_of(point)] = {**result, "point": point}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the trial's record."""
        self._settle(name_of(point_of(trial.config)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Leave a lost trial without a record, so that a rerun begins it again."""
        name = name_of(point_of(trial.config))
        self._last.pop(name, None)
        self.lost[name] = one_line(trial.get_error() or ValueError("no word of why"), 300)

    def settle(self) -> None:
        """Write the records of trials that the budget has cut off, too."""
        for name in set(self._last).difference(self.known):
            self._settle(name)

    def _settle(self, name: str) -> None:
        said = self._last[name]
        refused = str(said.get(REFUSED, ""))
        figures = {key: float(said[key]) for key in self._figures if key in said}
        record = Record(
            name=name,
            point=said["point"],
            state=FAILED if refused else FINISHED if said.get("ended") else STOPPED,
            objective=None if refused else figures.get(self._config.objective),
            steps=int(said.get("step", 0)),
            seconds=round(float(said.get("time_total_s", 0.0)), 2),
            figures={} if refused else figures,
            error=refused,
        )
        self.known[name] = record
        storage.write_json(self._output.path("records", f"{name}.json"), asdict(record))
        for line in report.table_lines(self._config, [asdict(r) for r in self.all()]):
            logger.info(line)


def point_of(trial: dict[str, Any]) -> Point:
    """Return the point in the config that Ray Tune has of a trial: under a key, or all of it."""
    return dict(trial.get("point", trial))
