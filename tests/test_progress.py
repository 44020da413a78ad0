from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailorset import progress
from tailorset.progress import Bar, Position, Report, reporting, spoken

POSITION = Position("tune_text_encoder", 3, 11, expected=600, after=1200)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Report]]:
    """Every report of a stage, not one per second."""
    monkeypatch.setattr(progress, "SECONDS_PER_REPORT", 0)
    reports: list[Report] = []
    with reporting(POSITION, reports.append):
        yield reports


def test_a_report_reads_as_a_line() -> None:
    line = str(Report("tune_text_encoder, stage 3 of 11", 0.409, 185, 540))
    assert line == (
        "tune_text_encoder, stage 3 of 11, 40 %, about 3 minutes left, about 12 minutes with the stages after it"
    )
    assert str(Report("draw, stage 3 of 11", left=185)) == "draw, stage 3 of 11, about 3 minutes left in this stage"
    assert str(Report("photos", left=185, after=0.0)) == "photos, about 3 minutes left"
    assert str(Report("tune_text_encoder, stage 3 of 11")) == "tune_text_encoder, stage 3 of 11"


def test_durations_as_people_say_them() -> None:
    said = [spoken(seconds) for seconds in (20, 70, 300, 9000)]
    assert said == ["less than a minute", "about a minute", "about 5 minutes", "about 2.5 hours"]


def test_a_bar_of_the_whole_stage_knows_what_is_left_of_it(told: list[Report]) -> None:
    with Bar(total=4, initial=2, unit="update", is_whole=True) as bar:
        bar.update()
        bar.refresh()
    assert told[-1].title == str(POSITION)
    assert told[-1].share == 0.75
    assert told[-1].left is not None
    assert told[-1].left < 60  # by its own speed, not by the 600 s of the last run
    assert told[-1].after == 1200


def test_a_bar_inside_a_stage_names_itself_and_leaves_the_time_to_the_stage(told: list[Report]) -> None:
    for _ in Bar(range(2), desc="decode data/real", unit="image"):
        pass
    assert told[-1].title == f"{POSITION}, decode data/real"
    assert told[-1].left == pytest.approx(600, abs=30)


def test_a_log_file_gets_whole_lines_and_no_carriage_return(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0)
    for _ in Bar(range(3), desc="predict", unit="image", mininterval=0):
        pass
    written = capsys.readouterr().err
    assert "\r" not in written
    assert "predict, 66 %" in written


def test_a_short_loop_writes_nothing_to_a_log_file(capsys: pytest.CaptureFixture[str]) -> None:
    list(Bar(range(3), desc="predict", unit="image"))
    assert capsys.readouterr().err == ""


def test_reports_come_once_per_second_at_most() -> None:
    reports: list[Report] = []
    with reporting(POSITION, reports.append):
        for _ in Bar(range(200), mininterval=0):
            pass
    assert len(reports) == 1


def test_a_report_says_that_other_programs_slow_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_PER_REPORT", 0)
    reports: list[Report] = []
    with reporting(POSITION, reports.append, others=lambda: 1.24):
        Bar(range(2)).refresh()
    assert str(reports[-1]).endswith("slowed by other programs (1.2 cores)")


def test_a_process_beside_the_first_shows_and_reports_nothing() -> None:
    reports: list[Report] = []
    with reporting(POSITION, reports.append, is_visible=False):
        assert Bar(range(2)).disable
    assert not reports


def test_every_loop_of_the_pipeline_counts_in_a_bar_that_reports() -> None:
    root = Path(__file__).resolve().parents[1]
    own = {root / "src/tailorset/progress.py", *(root / "pipeline/foundation").glob("*.py")}
    sources = {*(root / "src").rglob("*.py"), *(root / "pipeline").rglob("*.py")} - own
    assert not [path for path in sources if re.search(r"^(from|import) tqdm", path.read_text(encoding="utf-8"), re.M)]
