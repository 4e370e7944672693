"""The event processing, as a user runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.examples.programs import Refused, Start


def test_the_standard_librarys_files_are_events_shown_as_traces(example: Start) -> None:
    said = example("event_processing.py", "--limit", 40, "--traces", 2).end()
    trees = re.findall(
        r"^└── receive  .* ms\n"
        r"    └── ion_workerpool_task  .* ms  after .* ms in the queue, on events-\d\n"
        r"        └── handle  .* ms  .* ms of CPU\n"
        r"            ├── read  .* ms\n"
        r"            ├── parse  .* ms\n"
        r"            └── count  .* ms$",
        said, re.MULTILINE,
    )  # fmt: skip
    assert len(trees) == 2
    for name in ("receive", "ion_workerpool_task", "handle", "read", "parse", "count"):
        assert re.search(rf"│ {name} +│ +40 │", said)
    assert re.search(r"counted  \w+ \d+, ", said)
    assert "40 submitted = 0 queued + 0 running + 40 completed + 0 failed" in said


def test_a_log_may_be_the_events_and_what_fails_comes_first_in_its_trace(
    example: Start, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"user": {"name": "ann"}}\n\n{"user": [{"name": 1}]}\n[1]\n{"us\n')
    said = example("event_processing.py", "--events", log, "--traces", 2).end(code=1)
    assert said.count("TypeError: not an object: [1]") == 3, "decode, handle, task"
    assert said.count("JSONDecodeError: ") == 3
    assert "counted  user 2, name 2" in said
    assert "4 submitted = 0 queued + 0 running + 2 completed + 2 failed" in said


def test_ctrl_c_shows_what_was_traced_until_then(example: Start, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"key": [1, 2, 3]}\n' * 400_000)
    program = example("event_processing.py", "--events", log, "--limit", 400_000)
    program.expect("400000 events for 4 workers")
    program.interrupt()
    said = program.end(code=130)
    assert "Interrupted; what was traced until then:" in said
    assert " 0 queued + 0 running" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such folder: nowhere"),
        (["--events", "nowhere"], "No such file"),
        (["--workers", "0"], "0 is not in 1..256"),
        (["."], "no events in ."),
    ],
)
def test_a_wrong_argument_is_named(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused("event_processing.py", *arguments)
