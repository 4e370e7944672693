"""Tests of streams below the pool."""
