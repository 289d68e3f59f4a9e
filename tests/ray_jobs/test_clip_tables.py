"""Accounts of a clip table: every input is in it once."""

from typing import Any

import pytest

from ray_jobs.clip_tables import check_accounts

ACCOUNTS = {"inputs": 9, "kept": 4, "filtered": {"too_short": 2, "still": 1},
            "quarantined": {"decode_error": 2}}  # fmt: skip


def test_accounts_that_add_up_pass() -> None:
    check_accounts(ACCOUNTS, 9)


@pytest.mark.parametrize(
    "changed",
    [
        {"inputs": 8},
        {"inputs": 10},
        {"kept": 3},
        {"kept": 5},
        {"filtered": {"too_short": 2}},
        {"quarantined": {}},
        {"quarantined": {"decode_error": 2, "truncated": 1}},
    ],
)
def test_accounts_that_do_not_add_up_stop_the_job(changed: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match=r"9 inputs, \d+ rows, \d+ accounted for"):
        check_accounts({**ACCOUNTS, **changed}, 9)


@pytest.mark.parametrize("inputs", [8, 10])
def test_a_table_of_more_or_fewer_inputs_than_there_are_stops_the_job(inputs: int) -> None:
    with pytest.raises(AssertionError, match=f"^{inputs} inputs, 9 rows, 9 accounted for"):
        check_accounts(ACCOUNTS, inputs)
