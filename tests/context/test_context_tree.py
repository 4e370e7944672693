"""The tree of contexts against a model: who has ended, how, and who was told."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ion_actors import Cancelled, Context, DeadlineExceeded, background
from ion_actors.testing import VirtualClock


class Model:
    """What a context should be: the same rules, spelt out without cleverness."""

    def __init__(self, parent, deadline, now):
        self.parent = parent
        limits = [one for one in (deadline, parent and parent.deadline) if one is not None]
        self.deadline = min(limits, default=None)
        self.end = None
        self.reason = None
        self.told = 0
        self.settle(now)

    def settle(self, now):
        """Take notice of what has ended it by now."""
        if self.end is None and self.parent is not None and self.parent.settle(now):
            self.end, self.reason = self.parent.end, self.parent.reason
        if self.end is None and self.deadline is not None and now >= self.deadline:
            self.end, self.reason = DeadlineExceeded, "the deadline has passed"
        return self.end

    def cancel(self, reason, now):
        self.settle(now)
        if self.end is not None:
            return False
        self.end, self.reason = Cancelled, reason
        return True


class Tree(RuleBasedStateMachine):
    @initialize()
    def plant(self):
        self.clock = VirtualClock()
        self.nodes = []  # (context, model, how often it was told, registrations)

    def settle_all(self):
        for _, model, *_ in self.nodes:
            model.settle(self.clock.monotonic())

    def pick(self, number):
        return self.nodes[number % len(self.nodes)] if self.nodes else None

    @rule(number=st.integers(0, 30), timeout=st.none() | st.floats(0, 20))
    def branch(self, number, timeout):
        parent = self.pick(number) if number % 4 else None
        now = self.clock.monotonic()
        context = Context(parent[0] if parent else background(), timeout=timeout, clock=self.clock)
        deadline = None if timeout is None else now + timeout
        self.nodes.append((context, Model(parent and parent[1], deadline, now), [], []))

    @rule(number=st.integers(0, 30), reason=st.sampled_from(["why", "because"]))
    def cancel(self, number, reason):
        if node := self.pick(number):
            context, model, *_ = node
            assert context.cancel(reason) is model.cancel(reason, self.clock.monotonic())
            self.settle_all()

    @rule(number=st.integers(0, 30))
    def listen(self, number):
        if node := self.pick(number):
            context, _, told, registrations = node
            calls = []
            told.append(calls)
            registrations.append(context.add_callback(lambda: calls.append(1)))

    @rule(number=st.integers(0, 30))
    def stop_listening(self, number):
        node = self.pick(number)
        if node and node[3]:
            _, model, told, registrations = node
            registrations.pop().remove()
            calls = told.pop()
            assert bool(calls) is (model.end is not None)

    @rule(duration=st.floats(0, 10))
    def wait(self, duration):
        self.clock.advance(duration)
        self.settle_all()

    @invariant()
    def everybody_agrees(self):
        for context, model, told, _ in getattr(self, "nodes", []):
            # First who was told: asking must not be what makes it known.
            assert [len(calls) for calls in told] == [int(model.end is not None)] * len(told)
            assert context.cancelled is (model.end is not None)
            assert context.reason == model.reason
            assert context.deadline == model.deadline
            self.remaining_agrees(context, model)
            self.check_agrees(context, model)

    def remaining_agrees(self, context, model):
        if model.end is not None:
            assert context.remaining() == 0.0
        elif model.deadline is None:
            assert context.remaining() is None
        else:
            assert context.remaining() == model.deadline - self.clock.monotonic()

    def check_agrees(self, context, model):
        if model.end is None:
            context.check()
        else:
            with pytest.raises(model.end) as caught:
                context.check()
            assert type(caught.value) is model.end
            assert caught.value.reason == model.reason

    def teardown(self):
        for context, *_ in getattr(self, "nodes", []):
            context.cancel()
        if hasattr(self, "clock"):
            assert self.clock.timers == 0


TestTree = Tree.TestCase
TestTree.settings = settings(stateful_step_count=40)
