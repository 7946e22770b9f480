"""Learning-rate and method schedules against values computed by hand."""

import math

import pytest

from equibit.recipes.schema import Schedule
from equibit.training import schedules
from equibit.training.schedules import Position
from equibit.training.seeds import stream_seed


def factors(schedule, epochs, steps=2):
    return [
        schedules.lr_factor(schedule, epochs, Position(epoch, step, steps))
        for epoch in range(epochs)
        for step in range(steps)
    ]


def test_constant_and_warmup_per_step():
    schedule = Schedule("constant", warmup_epochs=2)
    assert factors(schedule, 3) == [0.25, 0.5, 0.75, 1, 1, 1]


def test_warmup_per_epoch():
    assert factors(Schedule("constant", warmup_epochs=2, update="epoch"), 3) == [0.5, 0.5, 1, 1, 1, 1]


def test_warmup_of_half_an_epoch():
    assert factors(Schedule("constant", warmup_epochs=0.5), 2, steps=4) == [0.5, 1, 1, 1, 1, 1, 1, 1]


def test_cosine_per_step():
    expected = [0.5 * (1 + math.cos(math.pi * s / 4)) for s in range(4)]  # 1, 0.854, 0.5, 0.146
    assert factors(Schedule("cosine"), 2) == pytest.approx(expected, abs=1e-15)
    assert expected[:3] == pytest.approx([1, 0.8535533906, 0.5])


def test_cosine_per_epoch_after_warmup():
    schedule = Schedule("cosine", warmup_epochs=1, update="epoch")
    assert factors(schedule, 3, steps=1) == pytest.approx([1, 1, 0.5])
    assert factors(Schedule("cosine", warmup_epochs=1), 2) == pytest.approx([0.5, 1, 1, 0.5])


def test_linear_after_warmup():
    assert factors(Schedule("linear", warmup_epochs=1), 3) == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])


def test_restarts_are_cosines_one_after_the_other():
    schedule = Schedule("restarts", milestones=(1, 3))
    once, twice = factors(Schedule("cosine"), 1), factors(Schedule("cosine"), 2)
    assert factors(schedule, 5) == pytest.approx([*once, *twice, *twice])
    assert factors(Schedule("restarts", milestones=(1, 3), update="epoch"), 5, steps=1) == pytest.approx(
        [1, 1, 0.5, 1, 0.5]
    )
    late = Schedule("restarts", warmup_epochs=1, milestones=(1, 2))
    assert factors(late, 3) == pytest.approx([0.5, 1, *once, *once])


def test_step_decay():
    schedule = Schedule("step", milestones=(1, 3), gamma=0.1)
    assert factors(schedule, 4, steps=1) == pytest.approx([1, 0.1, 0.1, 0.01])


def test_warmup_may_last_the_whole_training():
    assert factors(Schedule("cosine", warmup_epochs=1), 1) == [0.5, 1]


def test_method_progress():
    by_step, by_epoch = Schedule(), Schedule(method="epoch")
    assert schedules.method_progress(by_step, 4, Position(1, 1, 2)) == 0.375
    assert schedules.method_progress(by_epoch, 4, Position(1, 1, 2)) == 0.25


def test_random_streams_differ_by_seed_purpose_and_epoch():
    streams = {stream_seed(s, p, e) for s in range(5) for p in ("init", "order", "augment", "layers") for e in range(9)}
    assert len(streams) == 5 * 4 * 9
    assert stream_seed(1, "order", 2) == stream_seed(1, "order", 2)
    assert all(0 <= value < 2**63 for value in streams)
