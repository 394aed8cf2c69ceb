"""The TPU compiler, for tests that ask for it."""

import pytest


@pytest.fixture
def libtpu(monkeypatch):
    """Skips without libtpu; with it asks no other machine, and lets other tests load theirs."""
    pytest.importorskip("libtpu")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
