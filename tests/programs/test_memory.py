"""What a task costs in a process that has just begun: in this one, others came before."""

from __future__ import annotations

from collections.abc import Callable


def test_a_task_that_ends_after_a_burst_gets_no_dict_of_its_own(
    run: Callable[..., tuple[int, list[str], str]],
) -> None:
    code, said, complaint = run("""
        import gc

        begin = threading.Event()
        with Pool(1, 200) as pool:
            pool.submit(begin.wait)
            tasks = [pool.submit(int) for _ in range(100)]  # before any of them has ended
            pool.submit(int).cancel()  # its end has more to remember than that of the others
            begin.set()
            for task in tasks:
                assert task.result() == 0
            say(sum(type(one) is dict for task in tasks for one in gc.get_referents(task)))
    """)
    assert (code, said) == (0, ["0"]), complaint
