"""What a program pays for that has no use for processes."""

from __future__ import annotations

from collections.abc import Callable


def test_a_pool_of_threads_does_not_import_multiprocessing(
    run: Callable[..., tuple[int, list[str], str]],
) -> None:
    # Not measured: what measures it may import what it likes.
    program = """
        with Pool(1) as pool:
            pool.submit(pow, 2, 3).result()
        say(any(name.partition(".")[0] == "multiprocessing" for name in sys.modules))
        say("ion_actors.backends.process.parent.runner" in sys.modules)
    """
    code, said, complaints = run(program, measured=False)
    assert (code, said, complaints) == (0, ["False", "False"], "")
