"""The worker class of a pool as its callers see it: proxies, calls and messages.

A call goes to whichever worker is idle, and is a task like any other.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Never,
    NoReturn,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

import pykka

from ion_actors.actors.stateful import Fetch, Method

if TYPE_CHECKING:
    from ion_actors.futures import Future

__all__ = [
    "MethodProxy",
    "UnboundMethod",
    "WorkerMethod",
    "WorkerProxy",
    "no_worker_class",
    "worker_method",
]

Submit = Callable[..., "Future[Any]"]

T = TypeVar("T")
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)  # what a call in the worker returns
V_co = TypeVar("V_co", covariant=True)  # what its future has: a coroutine's result


class MethodProxy:
    """A method of the worker class; a call of it is a task."""

    __slots__ = ("_method", "_submit")

    def __init__(self, submit: Submit, method: Method) -> None:
        self._submit = submit
        self._method = method

    def __call__(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have an idle worker call it; waits for room as ``submit`` does."""
        return self._submit(self._method, *args, **kwargs)

    def defer(self, *args: Any, **kwargs: Any) -> None:
        """The same, when nobody wants the answer. An error in it is logged."""
        self._submit(self._method, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<proxy of {self._method.__qualname__}>"


class WorkerProxy:
    """What ``pool.proxy()`` gives: the public methods and attributes of the pool's worker class.

    A call of a method returns a future of its result. So does reading an attribute, which is that
    of whichever worker is idle; it must be known to the class, if only by an annotation.
    """

    _submit: Submit
    _owner: str
    _path: tuple[str, ...]
    _kind: Any

    def __init__(self, submit: Submit, owner: str, path: tuple[str, ...], kind: Any) -> None:
        vars(self).update(_submit=submit, _owner=owner, _path=path, _kind=kind)

    @classmethod
    def checked(cls, submit: Submit, actor_class: type[pykka.Actor], kind: Any) -> WorkerProxy:
        """The proxy of a pool's worker class, if that is the one which was asked for.

        Args:
            submit: the pool's.
            actor_class: what lives in its workers.
            kind: see ``Submitter.proxy``.

        Raises:
            TypeError: the pool's workers are of another class.
        """
        if kind is not None and not isinstance(kind, type):
            raise TypeError(f"kind must be a class or None, not {kind!r}")
        if kind is not None and issubclass(kind, pykka.Actor) and kind not in actor_class.__mro__:
            raise TypeError(
                f"kind must be a class of the pool's workers, which is {actor_class.__qualname__}, "
                f"not {kind.__qualname__}"
            )
        return cls(submit, actor_class.__qualname__, (), actor_class)

    def __getattr__(self, name: str) -> Any:
        member = self._find(name)
        path = (*self._path, name)
        if _is_traversable(member):
            found: Any = WorkerProxy(self._submit, self._owner, path, member)
        elif callable(member):
            found = MethodProxy(self._submit, Method(self._owner, *path))
        else:
            return self._submit(Fetch(self._owner, *path))
        vars(self)[name] = found  # the next time, Python finds it by itself
        return found

    def _find(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{name!r} is private: a proxy does not give it")
        if not self._path and name in vars(pykka.Actor) and name != "on_receive":
            raise AttributeError(
                f"{name!r} is for each worker itself; the pool starts and stops its workers"
            )
        known = _members(self._kind)
        if name not in known:
            raise AttributeError(
                f"{'.'.join((self._owner, *self._path))} has no {name!r}; an attribute that its "
                f"instances set for themselves must be declared in the class, as in '{name}: int'"
            )
        return known[name]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"cannot set {name!r} through a proxy, which would reach one worker of several; "
            "use broadcast()"
        )

    def __dir__(self) -> list[str]:
        return sorted(name for name in _members(self._kind) if not name.startswith("_"))

    def __repr__(self) -> str:
        return f"<proxy of {'.'.join((self._owner, *self._path))}>"


def _members(kind: Any) -> dict[str, Any]:
    """What a class, or the class of an object and the object, are known to have."""
    classes = kind.__mro__ if isinstance(kind, type) else type(kind).__mro__
    found: dict[str, Any] = {}
    for one in reversed(classes):
        found.update(dict.fromkeys(_declared(one)))
        found.update(vars(one))
    if not isinstance(kind, type):
        found.update(vars(kind))
    return {name: _unwrapped(member) for name, member in found.items()}


def _declared(kind: type) -> Iterable[str]:
    """The names that a class itself annotates."""
    if sys.version_info >= (3, 14):  # what they are annotated with may not exist
        import annotationlib  # noqa: PLC0415

        return annotationlib.get_annotations(kind, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(kind)


def _unwrapped(member: Any) -> Any:
    return member.__func__ if isinstance(member, classmethod | staticmethod) else member


def _is_traversable(member: Any) -> bool:
    marks = ("_pykka_traversable", "pykka_traversable")
    return not isinstance(member, type) and any(
        getattr(member, mark, False) is True for mark in marks
    )


class UnboundMethod(Generic[P, R_co, V_co]):
    """What type checkers find of a :func:`worker_method` in its class, and so in a proxy.

    No object is of this class: in the class there is the function, in a proxy a
    :class:`MethodProxy`. To type checkers, ``pool.proxy(ImageWorker)`` is the class, as only that
    has the names and the signatures of the methods. They see the two ways to call such a method.
    """

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Future[V_co]: ...
    @overload
    def __call__(self, worker: Any, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # it does accept
        """Call it through a proxy; or with an instance, as a function."""

    def defer(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """See :meth:`MethodProxy.defer`."""


class WorkerMethod(Generic[P, R_co, V_co]):
    """What :func:`worker_method` makes of a method, to type checkers."""

    @overload
    def __get__(self, worker: None, owner: Any, /) -> UnboundMethod[P, R_co, V_co]: ...
    @overload
    def __get__(self, worker: object, owner: Any, /) -> Callable[P, R_co]: ...
    def __get__(self, worker: object, owner: Any, /) -> Any:
        """The method of an instance is as it is without the decorator."""


@overload
def worker_method(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /
) -> WorkerMethod[P, Coroutine[object, Never, T], T]: ...
@overload
def worker_method(method: Callable[Concatenate[Any, P], T], /) -> WorkerMethod[P, T, T]: ...


def worker_method(method: Callable[..., Any], /) -> WorkerMethod[..., Any, Any]:
    """Have type checkers know what a method of a worker class returns through a proxy: a future.

    With it, ``pool.proxy(ImageWorker).resize(image)`` has the type ``Future[Image]``, and its
    arguments are checked. Nothing changes when the program runs: it returns the method as it is.

    Raises:
        TypeError: it decorates something else.
    """
    if not callable(method):
        raise TypeError(f"worker_method decorates a method, not {method!r}")
    return cast("WorkerMethod[..., Any, Any]", method)


def no_worker_class(pool: str) -> TypeError:
    """The error of a verb that needs workers with state."""
    return TypeError(f"pool {pool!r} has no worker class: make it with Pool(worker=...)")
