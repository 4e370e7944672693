"""What a child process says, and what its parent makes of it; here, both are this process."""

from __future__ import annotations

import logging
import pickle
import sys
import threading
import warnings

import pytest

from ion_actors import report_progress
from ion_actors.backends.process.transport import log_relay
from ion_actors.backends.process.transport.log_relay import Settings, relay_to, settings_here, show
from ion_actors.context import of_thread

QUIET = Settings({}, 0, [])
ALWAYS = pickle.dumps(("always", "", Warning, "", 0))
NO_ACTION = pickle.dumps(("no such action", "", Warning, "", 0))
NO_CATEGORY = pickle.dumps(("error", "", Warning, "", 0)).replace(b"Warning", b"Wanting")


class OwnWarning(UserWarning):
    pass


class Strange(UserWarning):
    def __reduce__(self):
        raise TypeError


@pytest.fixture
def as_a_child(monkeypatch):
    """Has this process behave like a child; gives what it has sent, and puts all back."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    before = [
        (one, one.handlers[:], one.level, one.propagate)
        for one in loggers
        if isinstance(one, logging.Logger)
    ]
    disabled = logging.root.manager.disable
    sent = []
    with warnings.catch_warnings():
        monkeypatch.setattr(of_thread, "report", None)
        yield sent
    for one, handlers, level, propagate in before:
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)
    logging.disable(disabled)


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def parents_handler():
    """Handler of the logger ``shop``, as the parent has set it up."""
    handler, shop = Kept(), logging.getLogger("shop")
    shop.addHandler(handler)
    yield handler
    shop.removeHandler(handler)
    shop.setLevel(logging.NOTSET)


def say(sent, settings, what):
    """Run ``what`` as a child would; returns what it has sent."""
    relay_to(sent.append, settings)
    try:
        what()
    finally:
        logging.root.handlers.clear()
    return sent[:]


def test_a_record_comes_out_of_the_parents_handlers(as_a_child, parents_handler):
    settings = Settings({"": logging.INFO}, 0, [])
    shop = logging.getLogger("shop")

    def work():
        assert shop.handlers == []
        shop.info("sold %d of %s", 3, threading.Lock(), extra={"order": 7, "lock": shop.handlers})

    news = say(as_a_child, settings, work)
    assert parents_handler.records == []
    shop.addHandler(parents_handler)
    for one in news:
        show(one)
    (record,) = parents_handler.records
    assert record.getMessage().startswith("sold 3 of <unlocked _thread.lock")
    assert (record.name, record.levelno, record.order) == ("shop", logging.INFO, 7)
    assert record.funcName == "work"


def test_what_cannot_be_pickled_in_a_record_is_shown_by_its_looks(as_a_child, parents_handler):
    news = say(
        as_a_child,
        QUIET,
        lambda: logging.getLogger("shop").error("x", extra={"lock": threading.Lock(), "n": [1]}),
    )
    logging.getLogger("shop").addHandler(parents_handler)
    show(news[0])
    (record,) = parents_handler.records
    assert record.lock.startswith("<unlocked")
    assert record.n == [1]


class Unwelcome:
    """Pickles, and does not come out of it."""

    def __reduce__(self):
        return int, ("no number",)


class Mute:
    def __reduce__(self):
        raise TypeError

    def __repr__(self):
        raise ValueError


def test_what_does_not_come_out_of_its_pickle_harms_no_record(as_a_child, parents_handler):
    extra = {"odd": Unwelcome(), "n": [1], "mute": Mute()}
    news = say(as_a_child, QUIET, lambda: logging.getLogger("shop").error("x", extra=extra))
    logging.getLogger("shop").addHandler(parents_handler)
    show(news[0])
    (record,) = parents_handler.records
    assert record.getMessage() == "x"
    assert (record.odd, record.n) == ("<Unwelcome that cannot be rebuilt>", [1])
    assert record.mute == "<Mute without a repr>"


def test_an_exception_in_a_record_comes_as_its_text(as_a_child, parents_handler):
    def work():
        try:
            raise ValueError("sold out")
        except ValueError:
            logging.getLogger("shop").exception("no sale")

    news = say(as_a_child, QUIET, work)
    logging.getLogger("shop").addHandler(parents_handler)
    show(news[0])
    text = logging.Formatter().format(parents_handler.records[0])
    assert text.startswith("no sale\nTraceback")
    assert text.endswith("ValueError: sold out")


def test_the_child_sends_only_what_the_parent_wants_to_hear(as_a_child, parents_handler):
    logging.getLogger("shop").setLevel(logging.ERROR)
    logging.getLogger("shop.till").setLevel(logging.DEBUG)
    try:
        settings = pickle.loads(pickle.dumps(settings_here()))
        assert settings.levels["shop"] == logging.ERROR
        logging.getLogger("shop").setLevel(logging.NOTSET)

        def work():
            logging.getLogger("shop").warning("no")
            logging.getLogger("shop").error("yes")
            logging.getLogger("shop.till").debug("yes")

        assert len(say(as_a_child, settings, work)) == 2
    finally:
        logging.getLogger("shop.till").setLevel(logging.NOTSET)


def test_the_parent_asks_its_own_levels_again(as_a_child, parents_handler):
    news = say(as_a_child, QUIET, lambda: logging.getLogger("shop").warning("x"))
    shop = logging.getLogger("shop")
    shop.addHandler(parents_handler)
    shop.setLevel(logging.ERROR)
    show(news[0])
    assert parents_handler.records == []
    shop.setLevel(logging.NOTSET)
    show(news[0])
    assert len(parents_handler.records) == 1


def test_a_record_whose_arguments_do_not_fit_is_the_childs_problem(as_a_child, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    assert say(as_a_child, QUIET, lambda: logging.getLogger("shop").error("%d", "x")) == []


def test_when_nobody_listens_errors_go_to_the_standard_error(as_a_child, capsys):
    def gone(_):
        raise EOFError

    relay_to(gone, QUIET)
    logging.getLogger("shop").error("out of stock")
    logging.getLogger("shop").info("and so on")
    warnings.warn("x", OwnWarning, stacklevel=1)
    report_progress(0.5)
    assert capsys.readouterr().err == "out of stock\n"


def test_a_warning_is_shown_by_the_parent(as_a_child):
    def work():
        warnings.warn("old", OwnWarning, stacklevel=1)

    settings = Settings({}, 0, [ALWAYS])
    news = say(as_a_child, settings, work)
    with warnings.catch_warnings(record=True) as seen:
        show(news[0])
    (found,) = seen
    assert found.category is OwnWarning
    assert str(found.message) == "old"
    assert found.filename == __file__
    assert found.lineno == work.__code__.co_firstlineno + 1


def test_a_warning_that_cannot_be_pickled_is_shown_by_its_words(as_a_child):
    settings = Settings({}, 0, [ALWAYS])
    news = say(as_a_child, settings, lambda: warnings.warn(Strange("odd"), stacklevel=1))
    with warnings.catch_warnings(record=True) as seen:
        show(news[0])
    assert seen[0].category is Strange
    assert str(seen[0].message) == "odd"


def test_the_parents_filters_hold_in_the_child(as_a_child):
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        warnings.simplefilter("always", OwnWarning)
        warnings.filterwarnings("error", message="do not.*this", category=OwnWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        settings = pickle.loads(pickle.dumps(settings_here()))

    def work():
        warnings.warn("x", DeprecationWarning, stacklevel=1)
        with pytest.raises(OwnWarning):
            warnings.warn("do not do this", OwnWarning, stacklevel=1)
        warnings.warn("do this", OwnWarning, stacklevel=1)

    assert len(say(as_a_child, settings, work)) == 1


def test_filters_that_are_the_parents_already_are_left_alone(as_a_child):
    warnings.filterwarnings("error", message="do not.*this", category=OwnWarning)
    before = list(warnings.filters)
    say(as_a_child, pickle.loads(pickle.dumps(settings_here())), lambda: None)
    assert all(one is other for one, other in zip(warnings.filters, before, strict=True))


def test_a_filter_that_the_parent_could_not_send_does_not_hold(as_a_child):
    settings = settings_here()

    class Local(UserWarning):
        pass

    warnings.simplefilter("ignore", Local)
    assert len(say(as_a_child, settings, lambda: None)) == 0
    assert Local not in [category for _, _, category, _, _ in warnings.filters]


def test_filters_that_cannot_be_pickled_or_understood_are_left_out(as_a_child):
    class Local(UserWarning):
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Local)
        assert len(settings_here().filters) == len(warnings.filters) - 1
    settings = Settings({}, 0, [NO_ACTION, NO_CATEGORY, b"no pickle", ALWAYS])
    assert len(say(as_a_child, settings, lambda: warnings.warn("x", stacklevel=1))) == 1


def test_warnings_for_a_file_go_there(as_a_child, monkeypatch):
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda *args: shown.append(args))

    def work():
        warnings.showwarning("x", UserWarning, "f.py", 1, file=sys.stdout)

    assert say(as_a_child, QUIET, work) == []
    assert shown == [("x", UserWarning, "f.py", 1, sys.stdout, None)]


def test_progress_reaches_the_worker_whose_task_it_is(as_a_child):
    news = say(as_a_child, QUIET, lambda: report_progress(0.5, "half"))
    reported = []
    of_thread.report = lambda *progress: reported.append(progress)
    show(news[0])
    of_thread.report = None
    show(news[0])  # nobody's
    assert reported == [(0.5, "half")]


@pytest.mark.parametrize(
    "news", [b"", b"nonsense", pickle.dumps((99, ())), pickle.dumps((1, (1, 2, 3)))]
)
def test_news_that_makes_no_sense_is_logged_and_no_more(news, caplog):
    show(news)
    assert "could not be relayed" in caplog.text


def test_a_hook_for_warnings_that_fails_is_logged_and_no_more(monkeypatch, caplog):
    def fail(*args):
        raise ValueError("hook")

    monkeypatch.setattr(warnings, "showwarning", fail)
    show(pickle.dumps((int(log_relay.RelayKind.WARNING), ("x", UserWarning, "f", 1, None))))
    assert "could not be relayed" in caplog.text
