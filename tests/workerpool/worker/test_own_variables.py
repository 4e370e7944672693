"""What a context variable holds and a task changes in place is the task's own."""

from __future__ import annotations

import contextvars
import decimal
import sys
import threading

import pytest

from ion_actors import Pool, Worker, own_variables
from ion_actors.own_variables import decimal_variable, own_values

PATIENCE = 30.0


@pytest.fixture(autouse=True)
def precise():
    with decimal.localcontext() as context:
        context.prec = 20
        yield


def set_precision(precision):
    before = decimal.getcontext().prec
    decimal.getcontext().prec = precision
    return before


def third():
    return str(decimal.Decimal(1) / 3)


def test_a_task_begins_with_its_submitters_precision_and_keeps_its_own_to_itself():
    with Pool(1) as pool:
        assert pool.submit(set_precision, 5).result(PATIENCE) == 20
        assert third() == "0." + 20 * "3"
        assert pool.submit(third).result(PATIENCE) == "0." + 20 * "3"


def test_what_counts_is_the_moment_of_the_submission():
    go = threading.Event()
    with Pool(1) as pool:
        pool.submit(go.wait, PATIENCE)
        future = pool.submit(third)
        decimal.getcontext().prec = 7
        go.set()
        assert future.result(PATIENCE) == "0." + 20 * "3"


def test_tasks_do_not_share_it_either():
    with Pool(2) as pool:
        assert list(pool.map(set_precision, range(5, 15))) == [20] * 10
        assert list(pool.map(set_precision, range(5, 15), chunksize=2)) == [20, 5, 20, 7] + [
            x for n in (9, 11, 13) for x in (20, n)
        ]
    assert decimal.getcontext().prec == 20


def test_coroutines_and_retries_have_it_anew():
    found = []

    async def spoil():
        found.append(set_precision(5))

    def panic():
        found.append(set_precision(5))
        if len(found) < 3:
            raise SystemExit

    with Pool(1) as pool:
        pool.submit(spoil).result(PATIENCE)
        pool.options(retry_on_worker_death=2).submit(panic).result(PATIENCE)
    assert found == [20, 20, 20]
    assert decimal.getcontext().prec == 20


class Spoiler(Worker):
    def on_receive(self, message):
        return set_precision(message)


def test_letters_have_it_for_themselves():
    with Pool(2, worker=Spoiler) as pool:
        assert [one.result(PATIENCE) for one in pool.broadcast(5)] == [20, 20]
        assert pool.ask(7).result(PATIENCE) == 20
    assert decimal.getcontext().prec == 20


def test_in_children_it_is_the_same():
    with Pool(1, backend="process") as pool:
        assert pool.submit(set_precision, 5).result(PATIENCE) == 20
        assert pool.submit(third).result(PATIENCE) == "0." + 20 * "3"
        assert third() == "0." + 20 * "3"


def test_it_costs_nothing_where_it_is_not_used(monkeypatch):
    context = contextvars.Context()
    assert own_values(context) is context
    assert len(context) == 0
    monkeypatch.setattr(own_variables, "_decimal", None)
    monkeypatch.delitem(sys.modules, "decimal")
    assert decimal_variable() is None
    context = contextvars.copy_context()
    inside = context.run(decimal.getcontext)
    own_values(context)
    assert context.run(decimal.getcontext) is inside


def test_a_half_imported_decimal_is_no_error(monkeypatch):
    monkeypatch.setattr(own_variables, "_decimal", None)
    monkeypatch.setitem(sys.modules, "decimal", type(sys)("decimal"))
    assert len(own_values(contextvars.Context())) == 0
