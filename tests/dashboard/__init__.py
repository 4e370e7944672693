"""Tests of what shows a running program from outside."""
