"""What only the tests that run processes inside their own event loop need."""

import pytest

import ingest.main


@pytest.fixture(autouse=True)
def _no_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    """No balancer has to turn away from an ingress that a test stops."""
    monkeypatch.setattr(ingest.main, "SHUTDOWN_NOTICE", 0.0)
