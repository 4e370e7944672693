"""The tests of the pool run wherever its tasks can: in threads, in child processes, and on Ray.

What a test hands to its tasks has to reach a child then: functions do (``cloudpickle`` takes them
by value), and a :class:`~tests.workerpool.helpers.Gate`; lists, events and barriers do not. So here
are the tests that speak to their tasks through this process's memory, or that have none. What
reaches a child reaches an actor of Ray's.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ion_actors import Pool
from ion_actors.backends.process import ProcessBackend
from tests.backends.conftest import forkserver_runs, no_child_is_left, quick_start
from tests.ray_cluster import RAY_IS_HERE, backend_of, param_of, ray_cluster

__all__ = ["forkserver_runs", "no_child_is_left", "quick_start", "ray_cluster"]

# By module: the tests that run in threads only. Modules that are not in here do so altogether.
IN_THREADS_ONLY: dict[str, frozenset[str]] = {
    "test_directives": frozenset(
        {
            "test_a_task_that_was_cancelled_is_not_decided_on",
        }
    ),
    "test_shutdown": frozenset(
        {
            "test_a_block_left_by_an_exception_closes",
            "test_a_closed_pool_leaves_nothing_on_its_context",
            "test_a_reply_can_be_awaited",
            "test_a_task_that_listens_is_cancelled_and_not_abandoned",
            "test_an_idle_pool_is_drained_without_any_timer",
            "test_at_its_deadline_drain_returns_the_tasks_it_did_not_finish",
            "test_ending_the_pool_from_its_own_task_does_not_deadlock",
            "test_no_drain_says_that_it_is_done_too_early",
            "test_stop_all_ends_a_pool_as_close_does",
            "test_whoever_ends_it_again_gets_the_same_end",
        }
    ),
    "test_hooks": frozenset(
        {
            "test_a_wrapper_that_fails_fails_its_task_only",
        }
    ),
    "test_keys_and_workers": frozenset(
        {
            "test_a_worker_that_does_not_come_for_the_next_task_of_its_key",
            "test_dropping_the_oldest_makes_room_although_more_are_queued_than_may_be",
            "test_who_waits_for_a_key_runs_the_task_if_nobody_is_left_to",
        }
    ),
    "test_key_limit": frozenset(
        {
            "test_a_caller_counts_and_waits_if_there_is_no_room_for_the_key",
            "test_a_future_that_a_stranger_settles_gives_up_its_place_and_no_other",
            "test_a_key_with_ten_thousand_tasks_does_not_starve_another",
            "test_a_limit_without_a_key_is_refused_when_a_task_comes_with_it",
            "test_a_priority_goes_before_a_turn",
            "test_a_senseless_limit_is_refused",
            "test_a_task_may_wait_for_another_of_its_key_while_there_is_room",
            "test_a_task_that_waits_for_one_too_many_of_its_own_key_is_told",
            "test_a_task_waits_for_its_key_as_long_as_another_that_has_it_goes_on",
            "test_between_two_tries_a_task_keeps_its_place",
            "test_by_default_it_is_one_and_options_add_up",
            "test_ctrl_c_while_a_task_is_queued_behind_its_key_loses_no_other",
            "test_no_limit_is_exceeded_under_load_and_each_key_begins_in_order",
            "test_of_different_limits_the_smallest_of_those_that_run_counts",
            "test_one_release_wakes_as_many_as_may_begin",
            "test_what_expires_lets_those_behind_it_begin",
            "test_what_is_dropped_for_the_newest_lets_those_behind_it_begin",
            "test_what_is_shed_does_not_count_among_those_that_run",
            "test_when_an_exclusive_task_is_over_all_that_waited_for_it_begin",
            "test_when_an_exclusive_task_that_waits_is_cancelled_those_behind_it_begin",
        }
    ),
    "test_pause": frozenset(
        {
            "test_a_caller_runs_nothing_while_it_is_paused",
            "test_a_circle_of_waits_is_refused_as_ever",
            "test_a_close_begins_nothing",
            "test_a_drain_resumes_it_and_finishes_everything",
            "test_a_pause_is_no_overload",
            "test_a_paused_pool_that_is_forgotten_is_drained",
            "test_a_pool_at_its_end_is_not_paused_and_resuming_does_nothing",
            "test_a_running_task_that_finds_no_room_runs_what_it_submits",
            "test_a_shutdown_that_cancels_begins_nothing",
            "test_a_task_may_pause_and_resume_its_own_pool",
            "test_a_worker_that_comes_while_nothing_waits_is_not_idle",
            "test_a_worker_that_looks_between_the_refusal_and_the_end_of_the_queue_is_woken",
            "test_asubmit_waits_without_blocking_the_loop",
            "test_ctrl_c_in_pause_and_resume_strands_nobody",
            "test_every_way_to_drain_resumes_it",
            "test_it_accepts_as_much_as_there_is_room_for",
            "test_it_is_seen",
            "test_it_may_be_paused_and_resumed_any_number_of_times",
            "test_nothing_begins_until_it_is_resumed",
            "test_pauses_at_any_time_lose_nothing",
            "test_the_end_of_its_context_ends_it",
            "test_the_policies_that_drop_go_by_the_bound",
            "test_those_who_wait_for_room_learn_of_the_end",
            "test_time_limits_count_on",
            "test_what_a_running_task_waits_for_is_a_part_of_it",
            "test_without_helping_a_task_waits_until_another_worker_is_resumed",
            "test_workers_that_come_later_begin_nothing_either",
        }
    ),
    "test_inspection": frozenset(
        {
            "test_what_waits_for_another_try_is_in_it_and_can_be_purged",
            "test_what_waits_for_its_time_comes_last",
            "test_a_cancelled_one_is_not_in_it",
            "test_a_closed_pool_has_nothing_to_show_or_to_purge",
            "test_a_predicate_may_use_the_pool_and_what_begins_meanwhile_is_not_touched",
            "test_a_predicate_that_raises_purges_nothing",
            "test_a_purge_ends_what_the_predicate_picks_and_says_how_many",
            "test_a_purge_of_those_that_stand_in_the_way_of_their_key_lets_others_begin",
            "test_arguments_are_shown_to_those_who_ask_and_in_no_repr",
            "test_callbacks_run_and_may_submit",
            "test_facts_are_frozen",
            "test_nothing_of_the_users_runs_in_a_look",
            "test_purges_and_workers_share_the_queue_without_losing_a_task",
            "test_the_age_of_one_that_had_to_wait_for_room_counts_from_its_acceptance",
            "test_the_predicate_sees_arguments_if_that_is_asked_for",
            "test_what_makes_no_sense_is_refused",
            "test_what_waits_is_listed_in_the_order_of_acceptance",
            "test_without_a_predicate_everything_goes_and_makes_room",
        }
    ),
    "test_dead_letters": frozenset(
        {
            "test_what_makes_no_sense_is_refused",
        }
    ),
    "test_parallel_map": frozenset(
        {
            "test_a_senseless_argument_of_map_is_named",
            "test_map_begins_before_anybody_iterates",
        }
    ),
    "test_overflow": frozenset(
        {
            "test_a_caller_that_ends_the_pool_does_not_wait_for_itself",
            "test_a_caller_waits_for_a_key_that_is_taken",
            "test_a_drain_finishes_the_lines_of_all_keys",
            "test_a_drain_waits_for_the_caller_and_reports_it",
            "test_a_minute_at_ten_times_the_capacity",
            "test_a_panic_handler_that_fails_does_not_reach_the_caller",
            "test_a_senseless_priority_is_refused",
            "test_a_senseless_ttl_is_refused",
            "test_a_soft_time_limit_while_the_caller_runs_a_task_is_the_callers",
            "test_a_stream_of_urgent_tasks_does_not_starve_the_others",
            "test_a_task_of_the_callers_that_panicked_runs_no_more_while_its_handler_does",
            "test_a_task_that_fills_its_own_pool_is_helped_and_not_run_by_a_caller",
            "test_a_task_that_waits_for_another_of_its_own_key_is_told",
            "test_an_interruption_strands_no_task_that_the_caller_runs",
            "test_an_unhashable_key_is_refused",
            "test_ctrl_c_while_the_caller_runs_a_task_is_the_callers",
            "test_no_policy_accepts_anything_at_the_end",
            "test_nobody_runs_anything_for_try_submit_and_asubmit",
            "test_once_the_overload_is_known_what_runs_has_waited_little",
            "test_random_tasks_with_keys_priorities_and_cancellations_all_end",
            "test_tasks_of_a_key_run_one_at_a_time_and_in_order",
            "test_the_caller_runs_coroutines_also_below_a_running_loop",
            "test_the_caller_runs_it_under_the_tasks_own_context",
            "test_the_caller_runs_what_finds_no_room",
            "test_the_more_urgent_begins_first_and_equals_in_their_order",
            "test_the_queue_full_error_is_a_queue_full_error",
            "test_what_is_dropped_for_overload_says_when_to_try_again",
            "test_what_the_caller_runs_fails_and_panics_as_anywhere",
            "test_what_the_caller_runs_is_hooked_and_wrapped_as_anywhere",
            "test_what_was_queued_before_the_first_priority_keeps_its_order",
            "test_without_a_queue_the_new_one_is_dropped",
        }
    ),
    "test_panics": frozenset(
        {
            "test_a_fault_in_the_very_end_hangs_nobody",
            "test_a_handler_runs_in_no_tasks_context",
            "test_a_worker_replaced_during_a_drain_that_comes_too_late_for_the_work_retires",
            "test_an_initializer_that_fails_at_first_is_tried_again",
            "test_an_initializer_that_keeps_failing_breaks_the_pool",
            "test_by_default_a_hopeless_initializer_gives_up_within_two_seconds",
            "test_the_initializer_runs_in_every_worker_and_every_replacement",
            "test_the_retries_of_an_initializer_back_off_on_the_clock",
            "test_whatever_is_not_an_exception_is_a_panic",
        }
    ),
    "test_progress": frozenset(
        {
            "test_a_callback_that_fails_harms_neither_the_task_nor_the_others",
            "test_a_done_callback_is_not_the_task",
            "test_a_future_shows_the_last_report_and_keeps_it",
            "test_a_task_that_runs_in_the_middle_of_another_reports_for_itself",
            "test_callbacks_are_called_at_each_report_in_the_order_they_came",
            "test_of_a_task_that_was_given_up_nobody_wants_to_know",
            "test_progress_is_a_plain_fact",
            "test_what_makes_no_sense_is_refused_also_outside_a_task",
        }
    ),
    "test_sizer": frozenset(
        {
            "test_a_map_feeds_as_many_workers_as_there_may_be",
            "test_a_pool_of_fixed_size_never_looks",
            "test_a_pool_that_is_paused_does_not_grow",
            "test_a_senseless_size_is_named",
            "test_it_goes_on_from_a_size_that_is_set_by_hand",
            "test_no_look_is_left_when_the_pool_ends",
            "test_the_size_follows_by_the_clock_of_the_pool",
            "test_a_task_that_takes_long_does_not_hold_up_all_others",
            "test_slots_of_an_event_loop_follow_the_work_too",
            "test_without_a_queue_it_grows_for_submitters_that_wait",
        }
    ),
    "test_submitter": frozenset(
        {
            "test_a_chain_of_tasks_that_submit_their_successor_does_not_grow",
            "test_a_context_can_be_taken_as_an_argument",
            "test_a_coroutine_is_really_cancelled_and_cleans_up",
            "test_a_new_pool_of_idle_workers_accepts_as_many_as_it_has",
            "test_a_senseless_argument_is_named_with_its_value",
            "test_a_senseless_task_timeout_is_refused",
            "test_a_task_ends_with_the_context_of_its_submitter",
            "test_a_task_submitted_by_a_task_ends_with_it",
            "test_a_task_that_cannot_be_called_is_refused_at_submit",
            "test_a_task_with_a_label_has_a_context_of_its_own_once_it_is_asked_for",
            "test_blocked_submitters_are_served_in_the_order_they_came",
            "test_cancelling_a_running_task_asks_it_to_stop",
            "test_context_variables_are_those_of_each_submission",
            "test_coroutine_functions_run_to_completion_on_the_workers_own_loop",
            "test_options_add_up",
            "test_submitting_under_a_context_that_has_ended_is_refused",
            "test_tasks_of_one_submitter_begin_in_order",
            "test_the_context_of_a_task_follows_it_into_other_threads",
            "test_what_a_coroutine_leaves_behind_is_cancelled",
            "test_what_a_task_sets_stays_with_it",
        }
    ),
    "test_stateful": frozenset(
        {
            "test_a_call_can_be_deferred",
            "test_a_class_that_forgets_its_base_is_named",
            "test_a_method_that_submits_to_its_own_pool_and_waits_is_helped",
            "test_a_method_that_the_class_does_not_have_is_refused_at_once",
            "test_a_proxy_shows_what_it_has",
            "test_a_worker_that_is_no_actor_class_is_refused",
            "test_callers_have_no_state_to_run_a_call_with",
            "test_each_worker_has_its_own",
            "test_escalate_breaks_the_pool_with_the_cause",
            "test_nothing_is_set_through_a_proxy",
            "test_stop_all_of_pykka_ends_the_pool_and_all_that_live_in_it",
            "test_what_a_proxy_has_not_is_named",
            "test_what_is_sent_where_tasks_run_can_be_pickled",
        }
    ),
}


# Those that do not run on an event loop: their tasks block it, are run by their submitters, or look
# at threads. tests/backends/test_asyncio*.py has what is like them there.
NOT_ON_A_LOOP: dict[str, frozenset[str]] = {
    "test_sizer": frozenset(
        {
            "test_slots_of_an_event_loop_follow_the_work_too",
            "test_the_size_follows_by_the_clock_of_the_pool",
        }
    ),
    "test_dead_letters": frozenset(
        {
            "test_an_abandoned_task_that_ends_late_is_told_once",
            "test_each_unfinished_task_of_the_report_is_a_dead_letter",
        }
    ),
    "test_directives": frozenset(
        {
            "test_the_last_worker_may_go_in_a_drain_that_has_nothing_more_to_do",
            "test_with_its_last_worker_the_pool_breaks_and_nothing_stays_pending",
        }
    ),
    "test_hooks": frozenset(
        {
            "test_a_task_that_ends_while_its_span_begins_has_it_finished_once",
        }
    ),
    "test_inspection": frozenset(
        {
            "test_what_waits_for_another_try_is_in_it_and_can_be_purged",
        }
    ),
    "test_key_limit": frozenset(
        {
            "test_a_caller_counts_and_waits_if_there_is_no_room_for_the_key",
            "test_a_task_may_wait_for_another_of_its_key_while_there_is_room",
            "test_a_task_that_is_tried_again_is_the_next_of_its_key",
            "test_a_task_that_waits_for_one_too_many_of_its_own_key_is_told",
            "test_a_task_waits_for_its_key_as_long_as_another_that_has_it_goes_on",
            "test_there_is_room_again_whatever_became_of_a_task",
        }
    ),
    "test_keys_and_workers": frozenset(
        {
            "test_a_worker_that_dies_with_the_key_in_a_drain_is_replaced_for_the_rest",
            "test_who_waits_for_a_key_runs_the_task_if_nobody_is_left_to",
            "test_who_waits_for_room_gets_it_when_a_key_is_passed_on",
        }
    ),
    "test_overflow": frozenset(
        {
            "test_a_caller_that_ends_the_pool_does_not_wait_for_itself",
            "test_a_caller_waits_for_a_key_that_is_taken",
            "test_a_drain_waits_for_the_caller_and_reports_it",
            "test_a_panic_handler_that_fails_does_not_reach_the_caller",
            "test_a_soft_time_limit_while_the_caller_runs_a_task_is_the_callers",
            "test_a_task_of_the_callers_that_panicked_runs_no_more_while_its_handler_does",
            "test_a_task_that_fills_its_own_pool_is_helped_and_not_run_by_a_caller",
            "test_a_task_that_waits_for_another_of_its_own_key_is_told",
            "test_an_interruption_strands_no_task_that_the_caller_runs",
            "test_ctrl_c_while_a_task_with_a_key_is_submitted_keeps_no_key",
            "test_ctrl_c_while_the_caller_runs_a_task_is_the_callers",
            "test_no_policy_accepts_anything_at_the_end",
            "test_nobody_runs_anything_for_try_submit_and_asubmit",
            "test_the_caller_runs_coroutines_also_below_a_running_loop",
            "test_the_caller_runs_it_under_the_tasks_own_context",
            "test_the_caller_runs_what_finds_no_room",
            "test_what_the_caller_runs_fails_and_panics_as_anywhere",
            "test_what_the_caller_runs_is_hooked_and_wrapped_as_anywhere",
        }
    ),
    "test_panics": frozenset(
        {
            "test_a_handler_that_hangs_does_not_hold_up_the_pool",
            "test_a_worker_replaced_during_a_drain_that_comes_too_late_for_the_work_retires",
            "test_a_worker_that_cannot_be_started_is_tried_again",
            "test_an_exception_thrown_into_an_idle_worker_costs_nothing_but_the_worker",
        }
    ),
    "test_parallel_map": frozenset(
        {
            "test_map_unordered_gives_what_is_done_first",
        }
    ),
    "test_pause": frozenset(
        {
            "test_a_caller_runs_nothing_while_it_is_paused",
            "test_a_circle_of_waits_is_refused_as_ever",
            "test_a_running_task_that_finds_no_room_runs_what_it_submits",
            "test_ctrl_c_in_pause_and_resume_strands_nobody",
            "test_the_successor_of_a_worker_that_dies_meanwhile_waits_too",
            "test_what_a_running_task_waits_for_is_a_part_of_it",
            "test_without_helping_a_task_waits_until_another_worker_is_resumed",
        }
    ),
    "test_progress": frozenset(
        {
            "test_a_task_that_runs_in_the_middle_of_another_reports_for_itself",
        }
    ),
    "test_shutdown": frozenset(
        {
            "test_the_end_works_under_asyncio",
        }
    ),
    "test_stateful": frozenset(
        {
            "test_a_method_that_submits_to_its_own_pool_and_waits_is_helped",
            "test_each_worker_has_its_own",
        }
    ),
    "test_submitter": frozenset(
        {
            "test_a_task_submitted_by_a_task_ends_with_it",
            "test_a_task_with_a_label_has_a_context_of_its_own_once_it_is_asked_for",
            "test_what_a_coroutine_leaves_behind_is_cancelled",
        }
    ),
}

#: The modules whose tests also run on Ray in child processes of actors: each takes long there.
ON_AGENTS = frozenset({"test_panics"})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have a test run on each backend."""
    name, module = metafunc.function.__name__, metafunc.module.__name__.rpartition(".")[2]
    if module in IN_THREADS_ONLY:
        places = ["thread", "process", "asyncio"]
        if name in IN_THREADS_ONLY[module]:
            places.remove("process")
        elif RAY_IS_HERE:
            places += ["ray", "ray-agent"] if module in ON_AGENTS else ["ray"]
        if name in NOT_ON_A_LOOP.get(module, ()):
            places.remove("asyncio")
        metafunc.parametrize("where", [*map(param_of, places)], indirect=True)


@pytest.fixture(autouse=True)
def where(request: pytest.FixtureRequest) -> Iterator[None]:
    """Which backend a pool has that is not told."""
    place = getattr(request, "param", "thread")
    if place == "thread":
        yield
        return
    if place == "process":
        pytest.importorskip("cloudpickle")
        request.getfixturevalue("no_child_is_left")
    defaults = Pool.__init__.__kwdefaults__
    assert defaults is not None
    with pytest.MonkeyPatch.context() as patched:
        backend = ProcessBackend(grace=0.5) if place == "process" else backend_of(place)
        patched.setitem(defaults, "backend", backend)
        yield


@pytest.fixture(scope="session", autouse=True)
def each_name_is_a_test(request: pytest.FixtureRequest) -> None:
    """Who is named above exists."""
    for item in request.session.items:
        if isinstance(item, pytest.Function):
            package, _, name = item.module.__name__.rpartition(".")
            names = (
                IN_THREADS_ONLY.get(name, frozenset()) | NOT_ON_A_LOOP.get(name, frozenset())
                if package.startswith(f"{__package__}")
                else ()
            )
            assert not [one for one in names if not hasattr(item.module, one)]
