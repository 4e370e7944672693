"""The verbs of a pool whose workers have state: a call of their class is a task like any other."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast, overload

from ion_actors.backends.calls import Method, Receive
from ion_actors.backends.resident import Residence
from ion_actors.workerpool.proxy import WorkerProxy

if TYPE_CHECKING:
    from ion_actors.futures import Future
    from ion_actors.workerpool.core import Core
    from ion_actors.workerpool.submitter import Submitter

__all__ = ["Calls", "no_worker_class"]

P = ParamSpec("P")
T = TypeVar("T")


class Calls:
    """Proxies, calls and messages. A part of ``Submitter``.

    All of these raise ``TypeError`` on a pool that was made without ``worker=``.
    """

    _core: Core

    @overload
    def proxy(self) -> WorkerProxy: ...
    @overload
    def proxy(self, kind: type[T]) -> T: ...

    def proxy(self, kind: type[Any] | None = None) -> Any:
        """The worker class as the callers of a pool see it: each method returns a future.

        A call goes to a worker that is idle, or waits for one as :meth:`submit` does.

        Args:
            kind: what to take the proxy for; of use to type checkers only. See ``pykka.typing``.
        """
        if kind is not None and not isinstance(kind, type):
            raise TypeError(f"kind must be a class or None, not {kind!r}")
        actor_class = self._residence().actor_class
        return WorkerProxy(self._submitter().submit, actor_class.__qualname__, (), actor_class)

    def method(self, method: Callable[Concatenate[Any, P], T], /) -> Callable[P, T]:
        """A method of the worker class as a function to submit, for instance to :meth:`map`.

        Args:
            method: as it is found in the class, for instance ``ImageWorker.resize``. In a pool of
                a subclass, it is the subclass's that is called.

        Raises:
            TypeError: it is none of that class.
        """
        return cast("Callable[P, T]", self._method(method))

    @overload
    def call(
        self,
        method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Future[T]: ...
    @overload
    def call(
        self, method: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...

    def call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have an idle worker call a method of its own: ``pool.call(ImageWorker.resize, image)``.

        The same as a call through :meth:`proxy`, and type checkers know its arguments and result.
        """
        return self._submitter().submit(self._method(method), *args, **kwargs)

    def ask(self, message: Any, /) -> Future[Any]:
        """Have the ``on_receive`` of an idle worker answer a message. Returns the future answer."""
        return self._submitter().submit(Receive(self._residence().name), message)

    def tell(self, message: Any, /) -> None:
        """:meth:`ask`, when nobody wants the answer. If it raises, the error is logged."""
        self.ask(message)

    def _method(self, function: object) -> Method:
        residence = self._residence()
        return Method(residence.name, residence.name_of(function))

    def _submitter(self) -> Submitter:
        return cast("Submitter", self)

    def _residence(self) -> Residence:
        residence = self._core.spec.residence
        if residence is None:
            raise no_worker_class(self._core.spec.name)
        return residence


def no_worker_class(pool: str) -> TypeError:
    """The error of a verb that needs workers with state."""
    return TypeError(f"pool {pool!r} has no worker class: make it with Pool(worker=...)")
