"""What ``docs/how-to/servers.md`` says of each server holds."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from tests.programs.servers.conftest import Serve

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these servers fork")


def needs(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed")


def _uwsgi() -> str | None:
    beside = Path(sys.executable).with_name("uwsgi")
    return str(beside) if beside.exists() else shutil.which("uwsgi")


needs_uwsgi = pytest.mark.skipif(_uwsgi() is None, reason="uwsgi is not installed")

# A program with a pool that is made at import, and what it answers.
EAGER = """
import os
from ion_actors import Pool
pool = Pool(2)
def application(environ, start_response):
    try:
        answer = str(pool.submit(pow, 2, 10).result(timeout=20))
    except Exception as error:
        answer = type(error).__name__
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
"""

# One that accepts work which is to be finished when the server is gone.
LATER = """
import os, time
from wsgi import pool
def later():
    while os.path.exists("hold"):
        time.sleep(0.001)
    os.write(1, b"later is done\\n")  # in one piece: others write there, too
def application(environ, start_response):
    pool().submit(later)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"accepted"]
"""


def write(folder: Path, name: str, source: str) -> None:
    (folder / name).write_text(textwrap.dedent(source))


# One worker: what gunicorn sends to one that is still booting is lost, and it waits for its end.
GUNICORN = ("gunicorn", "--bind", "127.0.0.1:0", "--workers", "1", "--no-control-socket",
            "--graceful-timeout", "10")  # fmt: skip
GTHREAD = ("--worker-class", "gthread", "--threads", "4")


@needs("gunicorn")
@pytest.mark.parametrize("kind", [(), GTHREAD], ids=["sync", "gthread"])
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_gunicorn(
    serve: Serve, tmp_path: Path, kind: tuple[str, ...], preload: tuple[str, ...]
) -> None:
    write(tmp_path, "eager.py", EAGER)
    eager = serve(*GUNICORN, *kind, *preload, "eager")
    lazy = serve(*GUNICORN, *kind, *preload, "wsgi")
    assert eager.get() == ("PoolForked" if preload else "1024")
    assert lazy.get() == "1024"
    for one in (eager, lazy):
        one.stop()
        assert one.process.returncode == 0


@needs("gunicorn")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_gunicorn_lets_its_workers_finish(serve: Serve, tmp_path: Path, signum: int) -> None:
    write(tmp_path, "later_app.py", LATER)
    hold = tmp_path / "hold"
    hold.touch()
    server = serve(*GUNICORN, "later_app")
    assert server.get() == "accepted"
    server.process.send_signal(signum)
    server.await_line("Handling signal")
    hold.unlink()
    server.await_line("later is done")
    server.stop()


UWSGI = ("--http-socket", "127.0.0.1:0", "--master", "--processes", "2", "--enable-threads",
         "--die-on-term", "--need-app")  # fmt: skip


@needs_uwsgi
@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ((), "PoolForked"),
        (("--threads", "3"), "PoolForked"),
        (("--py-call-osafterfork",), "PoolForked"),
        (("--lazy-apps",), "1024"),
    ],
)
def test_uwsgi(serve: Serve, tmp_path: Path, options: tuple[str, ...], answer: str) -> None:
    write(tmp_path, "eager.py", EAGER)
    uwsgi = _uwsgi()
    eager = serve.program(uwsgi, *UWSGI, *options, "--wsgi-file", "eager.py")  # type: ignore[attr-defined]
    lazy = serve.program(uwsgi, *UWSGI, *options, "--wsgi-file", "wsgi.py")  # type: ignore[attr-defined]
    for _ in range(4):  # by whichever worker
        assert eager.get() == answer
        assert lazy.get() == "1024"


@needs_uwsgi
def test_uwsgi_has_a_hook_after_its_forks(serve: Serve, tmp_path: Path) -> None:
    write(
        tmp_path,
        "hooked.py",
        EAGER.replace("pool = Pool(2)\n", "from uwsgidecorators import postfork\n@postfork\n"
                      "def make():\n    global pool\n    pool = Pool(2)\n"),
    )  # fmt: skip
    server = serve.program(_uwsgi(), *UWSGI, "--wsgi-file", "hooked.py")  # type: ignore[attr-defined]
    assert server.get() == "1024"


PROCESSES = """
import multiprocessing, os, sys
from ion_actors import Pool
multiprocessing.set_executable(os.path.join(sys.exec_prefix, "bin", "python"))
parents = Pool(1, backend="process")
first = parents.submit(pow, 2, 3).result()
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    with Pool(1, backend="process") as pool:
        return [str(pool.submit(pow, 2, first).result(timeout=20)).encode()]
"""


@needs_uwsgi
def test_uwsgi_has_child_processes_once_it_knows_the_interpreter(
    serve: Serve, tmp_path: Path
) -> None:
    write(tmp_path, "processes.py", PROCESSES)
    server = serve.program(_uwsgi(), *UWSGI, "--wsgi-file", "processes.py")  # type: ignore[attr-defined]
    assert server.get() == "256"
    server.stop()


@needs_uwsgi
def test_uwsgi_lets_its_workers_finish(serve: Serve, tmp_path: Path) -> None:
    write(tmp_path, "later_app.py", LATER)
    hold = tmp_path / "hold"
    hold.touch()
    command = (_uwsgi(), *UWSGI, "--processes", "1", "--wsgi-file", "later_app.py")
    server = serve.program(*command)  # type: ignore[attr-defined]
    assert server.get() == "accepted"
    server.await_line("GET / =>")  # while it answers, it would run no exit hooks
    server.process.send_signal(signal.SIGHUP)
    server.await_line("gracefully killing workers")
    hold.unlink()
    server.await_line("later is done")


UVICORN = ("uvicorn", "--port", "0")


@needs("uvicorn")
@pytest.mark.parametrize(
    "options", [(), ("--workers", "2"), ("--reload",)], ids=["one", "workers", "reload"]
)
def test_uvicorn(serve: Serve, options: tuple[str, ...]) -> None:
    server = serve(*UVICORN, *options, "asgi:app")
    assert server.get() == "1024"
    assert "ERROR" not in server.stop()


ACCEPTS = """
import os, time
from signalled import make_pool
from ion_actors import Pool
import asgi
pool = asgi.pools["requests"] = {make}
def later():
    while os.path.exists("hold"):
        time.sleep(0.001)
    os.write(1, b"later is done\\n")  # in one piece: others write there, too
async def app(scope, receive, send):
    if scope["type"] != "lifespan":
        pool.submit(later)
        await asgi.app(scope, receive, send)
"""


@needs("uvicorn")
@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])
def test_uvicorn_ends_by_its_signal_and_a_pool_may_drain_on_it(
    serve: Serve, tmp_path: Path, options: tuple[str, ...]
) -> None:
    write(tmp_path, "accepts.py", ACCEPTS.format(make="make_pool()"))
    hold = tmp_path / "hold"
    hold.touch()
    server = serve(*UVICORN, *options, "accepts:app")
    assert server.get() == "1024"
    server.process.send_signal(signal.SIGTERM)
    server.await_line("Finished server process")
    hold.unlink()
    assert "later is done" in server.end()


@needs("uvicorn")
def test_uvicorn_does_not_drain_a_pool_that_was_made_at_import(
    serve: Serve, tmp_path: Path
) -> None:
    write(tmp_path, "accepts.py", ACCEPTS.format(make="Pool(2)"))
    (tmp_path / "hold").touch()
    server = serve(*UVICORN, "accepts:app")
    assert server.get() == "1024"
    assert "later is done" not in server.stop()
    assert server.process.returncode == -signal.SIGTERM


@needs("flask")
def test_flask(serve: Serve) -> None:
    server = serve("flask", "--app", "flask_app", "run", "--port", "0")
    assert server.get() == "1024"
    assert "Traceback" not in server.stop(signal.SIGINT)


@needs("flask")
def test_the_reloader_of_flask_drains_the_pool(serve: Serve, tmp_path: Path) -> None:
    program = (tmp_path / "flask_app.py").read_text() + textwrap.dedent(
        """
        import os, time
        print("imported", flush=True)
        def later():
            while os.path.exists("hold"):
                time.sleep(0.001)
            os.write(1, b"later is done\\n")  # in one piece: others write there, too
        @app.get("/later")
        def accept():
            pool().submit(later)
            return "accepted"
        """
    )
    write(tmp_path, "flask_app.py", program)
    hold = tmp_path / "hold"
    hold.touch()
    server = serve("flask", "--app", "flask_app", "run", "--port", "0", "--debug")
    assert server.get() == "1024"
    assert server.get("/later") == "accepted"
    server.await_line("imported", 2)  # by the one that watches, and by the one that serves
    server.await_reload(tmp_path / "flask_app.py", "reloading")
    hold.unlink()
    server.await_line("later is done")
    server.await_line("imported", 3)
    assert server.get() == "1024"
    server.stop(signal.SIGINT)


@needs("django")
def test_django(serve: Serve, tmp_path: Path) -> None:
    server = serve.program(sys.executable, "-c", RUNSERVER)  # type: ignore[attr-defined]
    assert server.get() == "1024"
    server.await_reload(tmp_path / "wsgi.py", "development server at", 2)
    assert server.get() == "1024"
    server.stop()


# Its own server cannot choose a port by itself.
RUNSERVER = """
import os, runpy, socket, sys
if "PORT" not in os.environ:
    with socket.create_server(("127.0.0.1", 0)) as one:
        os.environ["PORT"] = str(one.getsockname()[1])
    os.execv(sys.executable, [sys.executable, "site_app.py", "runserver",
                              "127.0.0.1:" + os.environ["PORT"]])
"""


@pytest.mark.slow
@needs("celery")
def test_celery(serve: Serve, tmp_path: Path) -> None:
    write(
        tmp_path,
        "more_tasks.py",
        """
        from tasks import app
        from ion_actors import Pool
        eager = Pool(1)
        @app.task
        def use_eager():
            try:
                return eager.submit(pow, 2, 10).result()
            except Exception as error:
                return type(error).__name__
        @app.task
        def use_processes():
            with Pool(1, backend="process") as pool:
                return pool.submit(pow, 2, 10).result()
        """,
    )
    worker = serve("celery", "--app", "more_tasks", "worker", "--concurrency", "1",
                   "--pool", "prefork", "--without-gossip", "--without-mingle")  # fmt: skip
    asked = serve.program(  # type: ignore[attr-defined]
        sys.executable, "-c",
        "import more_tasks, tasks; print(tasks.power.delay(2, 10).get(timeout=20), "
        "more_tasks.use_eager.delay().get(timeout=20), "
        "more_tasks.use_processes.delay().get(timeout=20))",
    )  # fmt: skip
    asked.await_line("1024 PoolForked 1024")
    worker.stop()
    assert worker.process.returncode == 0


@needs("nbclient")
@needs("ipykernel")
def test_notebook() -> None:
    import nbformat
    from nbclient import NotebookClient

    cells = [
        "from ion_actors import Pool\npool = Pool(2)\npool.submit(pow, 2, 10).result()",
        "await pool.submit(pow, 2, 10)",
        "pool = Pool(2)\npool.submit(pow, 2, 10).result()",
        "import os, signal, threading\ngate = threading.Event()\n"
        "task = pool.submit(gate.wait, 20)\n"
        "threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n    task.result()\nexcept KeyboardInterrupt:\n    print(task.running())",
        "gate.set()\npool.close()",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])
    NotebookClient(book, timeout=30, kernel_name="python3").execute()
    said = [[out.get("text") or out["data"]["text/plain"] for out in one.outputs]
            for one in book.cells[:4]]  # fmt: skip
    assert said == [["1024"], ["1024"], ["1024"], ["True\n"]]


def test_a_service_in_a_container_ends_as_the_page_says(serve: Serve) -> None:
    server = serve.program(sys.executable, "-c", "import service; service.main()")  # type: ignore[attr-defined]
    server.await_line("ready")
    assert "accepted" in server.stop()
    assert server.process.returncode == -signal.SIGTERM  # where it is not the first process
