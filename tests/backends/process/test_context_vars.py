"""Context variables and traces on their way to a child process, which here is this one."""

from __future__ import annotations

import contextvars
import decimal
import pickle
import sys
import threading
import types

import pytest

from ion_actors import Context
from ion_actors.backends.process.transport import context_vars
from ion_actors.backends.process.transport.context_vars import (
    left_behind,
    pack_variables,
    unpack_variables,
)

REQUEST = contextvars.ContextVar("request", default=None)
OTHER = contextvars.ContextVar("other", default=None)


class Counts:
    """How often somebody tries to pickle one of these, in vain."""

    tries = 0

    def __reduce__(self):
        type(self).tries += 1
        raise TypeError


class Later:
    def __reduce__(self):
        return sys.exit, (3,)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(context_vars, "KNOWN", context_vars.Known())


def made_of(**values):
    """A context with these values of the variables of this module."""
    context = contextvars.Context()
    for name, value in values.items():
        context.run(globals()[name].set, value)
    return context


def test_variables_arrive_and_nothing_else_does():
    packed = pack_variables(made_of(REQUEST="r-1", OTHER=[1, 2]))
    found = unpack_variables(packed)
    assert dict(found) == {REQUEST: "r-1", OTHER: [1, 2]}


def test_without_variables_there_is_nothing_to_send():
    assert pack_variables(contextvars.Context()) is None
    assert len(unpack_variables(None)) == 0


def test_the_librarys_own_stay():
    with Context():
        context = contextvars.copy_context()
    assert len(context) >= 2
    assert pack_variables(contextvars.Context()) is None
    ours = contextvars.Context()
    ours.run(lambda: Context().__enter__())
    assert len(ours) == 1
    assert pack_variables(ours) is None
    assert left_behind(ours) == {}


def test_one_that_cannot_be_pickled_is_left_behind_and_the_others_go():
    context = made_of(REQUEST=threading.Lock(), OTHER=1)
    assert dict(unpack_variables(pack_variables(context))) == {OTHER: 1}
    assert left_behind(context) == {"request": "it cannot be pickled"}


def test_what_could_not_be_pickled_once_is_not_tried_for_each_task():
    for _ in range(5):
        assert pack_variables(made_of(REQUEST=Counts())) is None
    assert Counts.tries == 1
    context = made_of(REQUEST="now it can")
    assert dict(unpack_variables(pack_variables(context))) == {REQUEST: "now it can"}


def test_one_that_no_module_has_is_left_behind():
    loner = contextvars.ContextVar("loner")
    context = contextvars.Context()
    context.run(loner.set, 1)
    assert pack_variables(context) is None
    assert left_behind(context) == {"loner": "no module has a name for it"}


def test_one_that_a_later_module_has_is_found():
    late = contextvars.ContextVar("late")
    context = contextvars.Context()
    context.run(late.set, 1)
    assert pack_variables(context) is None
    module = types.ModuleType("a_late_module")
    module.late = late
    sys.modules["a_late_module"] = module
    try:
        assert dict(unpack_variables(pack_variables(context))) == {late: 1}
    finally:
        del sys.modules["a_late_module"]


def test_a_module_that_loads_itself_when_it_is_touched_is_left_alone(monkeypatch):
    class Lazy(types.ModuleType):
        def __getattribute__(self, name):
            raise AssertionError("touched")

    monkeypatch.setitem(sys.modules, "a_lazy_module", Lazy("a_lazy_module"))
    monkeypatch.setitem(sys.modules, "not_a_module", object())
    loner = contextvars.ContextVar("loner")
    context = contextvars.Context()
    context.run(loner.set, 1)
    assert pack_variables(context) is None


@pytest.mark.parametrize(
    "values",
    [
        [(("no_such_module", "x"), pickle.dumps(1))],
        [(("sys", "no_such_name"), pickle.dumps(1))],
        [(("sys", "version"), pickle.dumps(1))],
        [((__name__, "OTHER"), pickle.dumps(Later()))],
    ],
)
def test_what_cannot_be_set_over_there_is_left_out(values):
    good = ((__name__, "REQUEST"), pickle.dumps("r"))
    found = unpack_variables(pickle.dumps(([*values, good], {})))
    assert dict(found) == {REQUEST: "r"}


def test_a_program_that_makes_variables_by_the_thousand_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(context_vars, "_MOST_KNOWN", 10)
    for number in range(50):
        context = contextvars.Context()
        context.run(contextvars.ContextVar(f"v{number}").set, number)
        assert pack_variables(context) is None
    assert len(context_vars.KNOWN) <= 11


# -- traces ------------------------------------------------------------------------------------


def test_the_trace_crosses():
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("t")
    context = contextvars.copy_context()

    def submit():
        with tracer.start_as_current_span("here") as span:
            sent = contextvars.copy_context()
            return span.get_span_context(), pack_variables(sent), left_behind(sent)

    span, packed, left = context.run(submit)
    assert "current_context" not in left
    found = unpack_variables(packed).run(lambda: trace.get_current_span().get_span_context())
    assert found.trace_id == span.trace_id
    assert found.span_id == span.span_id
    assert found.is_remote


def test_the_trace_crosses_from_within_the_context():
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider

    context = contextvars.Context()

    def submit():
        with TracerProvider().get_tracer("t").start_as_current_span("here"):
            return pack_variables(context)

    assert context.run(submit) is not None


def test_without_a_span_there_is_nothing_to_send():
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider

    context = contextvars.Context()

    def submit():
        with TracerProvider().get_tracer("t").start_as_current_span("here"):
            pass
        return pack_variables(context)

    assert context.run(submit) is None


def test_a_broken_propagator_harms_no_task(monkeypatch):
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry import propagate
    from opentelemetry.sdk.trace import TracerProvider

    def broken(*args, **kwargs):
        raise ValueError

    monkeypatch.setattr(propagate, "inject", broken)
    monkeypatch.setattr(propagate, "extract", broken)
    context = contextvars.Context()

    def submit():
        REQUEST.set("r")
        with TracerProvider().get_tracer("t").start_as_current_span("here"):
            return pack_variables(context)

    packed = context.run(submit)
    assert dict(unpack_variables(packed)) == {REQUEST: "r"}
    assert dict(unpack_variables(pickle.dumps(([], {"traceparent": "x"})))) == {}


def test_decimals_context_arrives():
    context = contextvars.Context()
    context.run(decimal.setcontext, decimal.Context(prec=7, rounding=decimal.ROUND_UP))
    assert left_behind(context) == {}
    found = unpack_variables(pack_variables(context)).run(decimal.getcontext)
    assert (found.prec, found.rounding) == (7, decimal.ROUND_UP)
    assert found is not context.run(decimal.getcontext)


def test_numpys_ways_with_errors_arrive():
    numpy = pytest.importorskip("numpy", minversion="2", reason="before, they are no variable")
    context = contextvars.Context()
    before = numpy.geterr()
    context.run(numpy.seterr, divide="raise", over="call")
    context.run(numpy.seterrcall, on_error)
    context.run(numpy.setbufsize, 16 * 1024)
    assert left_behind(context) == {}
    found = unpack_variables(pack_variables(context))
    assert found.run(numpy.geterr) == {**before, "divide": "raise", "over": "call"}
    assert found.run(numpy.geterrcall) is on_error
    assert found.run(numpy.getbufsize) == 16 * 1024
    assert numpy.geterr() == before


def on_error(kind, flag):
    raise AssertionError


def test_structlogs_variables_arrive():
    structlog = pytest.importorskip("structlog")
    context = contextvars.Context()
    context.run(structlog.contextvars.bind_contextvars, request="r", user=["u"], gone=1)
    context.run(structlog.contextvars.unbind_contextvars, "gone")
    assert left_behind(context) == {}
    found = unpack_variables(pack_variables(context))
    assert found.run(structlog.contextvars.get_contextvars) == {"request": "r", "user": ["u"]}
    context.run(structlog.contextvars.bind_contextvars, lock=threading.Lock())
    assert left_behind(context) == {"structlog_lock": "it cannot be pickled"}
