"""Progress: an honest forecast, silence where nobody looks, lines and events for those who ask."""

from __future__ import annotations

import json

import pytest

from osembed.cli import meter
from osembed.cli.meter import Forecast, Meter
from osembed.ingest.intake import Intake
from osembed.ingest.options import IngestOptions
from tests.conftest import paper


def run(speeds, minutes):
    """Do work at speeds that change, a step a second; return (forecast, truth) at each step after the first minute."""
    now = done = 0.0
    seen, forecast = [], Forecast()
    while done < 1:
        done = min(1.0, done + speeds(done))
        now += 1
        seen.append((now, forecast.left_s(done, now)))
    return [(left, now - at) for at, left in seen if at >= 60 * minutes and now - at > 5]


@pytest.mark.parametrize(
    "speeds",
    [
        lambda done: 1 / 780,
        lambda done: 1 / 500 if int(done * 100) % 2 else 1 / 1000,  # short and long papers in turn
        lambda done: 1 / 20 if done < 0.5 else 1 / 1000,  # half of it was done before
    ],
)
def test_forecasts_are_within_a_factor_of_two(speeds):
    """From the first minute of the work that is left."""
    told = run(speeds, 1.5)
    assert told
    assert all(truth / 2 <= left <= truth * 2 for left, truth in told)


def test_a_forecast_waits_until_it_knows():
    forecast = Forecast()
    assert forecast.left_s(0.1, 1) is None
    assert forecast.left_s(0.2, 3) is None
    assert forecast.left_s(0.2, 3) is None
    assert forecast.left_s(0.5, 11) == pytest.approx(12.5)


@pytest.mark.parametrize("kind", ["auto", "off"])
def test_nobody_at_a_terminal_is_told_nothing(kind, monkeypatch, capsys):
    monkeypatch.setattr(meter, "_EVERY_S", {"lines": 0.0, "json": 0.0})
    with Meter("…", kind) as shown:
        shown.show(0.5, "half")
    assert capsys.readouterr().err == ""


def test_lines_and_events(monkeypatch, capsys):
    """With a share where there is one; else what is known."""
    monkeypatch.setattr(meter, "_EVERY_S", {"lines": 0.0, "json": 0.0})
    with Meter("…", "lines") as shown:
        shown.show(0.5, "5 papers", left_s=7000.0)
        shown.show(None, "9 papers")
    assert capsys.readouterr().err.splitlines() == [" 50% 5 papers · about 1 h 57 min left", "9 papers"]
    with Meter("…", "json") as shown:
        shown.show(None, "9 papers", {"papers": 9})
    assert json.loads(capsys.readouterr().err) == {"event": "progress", "done": None, "left_s": None, "papers": 9}


def test_what_has_no_end_has_no_share(write):
    intake = Intake([write([paper(1)]), "-"], IngestOptions(), "c")
    assert intake.share(100) is None
    intake.close()


def test_the_first_report_has_a_forecast(monkeypatch, capsys):
    """On a slow machine the next one is a minute away."""
    monkeypatch.setattr(meter, "_EVERY_S", {"json": 0.0})
    monkeypatch.setattr(meter, "_FIRST_S", 0.0)
    with Meter("…", "json") as shown:
        shown.show(0.25, "a quarter")
    assert json.loads(capsys.readouterr().err)["left_s"] >= 0
