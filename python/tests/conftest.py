"""A memory mount of its own for every test, and writers that end with it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from writer import DEADLINE, Writer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def bounded(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ends a test that waits for ever; those that run the type checker bound themselves."""
    if request.module.__name__.endswith("test_types"):
        yield
        return

    limit = getattr(request.module, "LIMIT", DEADLINE * 3)

    def give_up(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"the test took more than {limit:.0f} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(int(limit))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def synthetic() -> Path:
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    program = target / "release/examples/synthetic"
    assert program.exists(), f"no {program}; cargo build --release -p camring-ring --example synthetic"
    return program


@pytest.fixture
def shm_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="camring-pytest-", dir="/dev/shm"))
    # As /dev/shm itself: other users may look, and add what is theirs.
    folder.chmod(0o1777)
    monkeypatch.setenv("CAMRING_SHM_DIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def writer(synthetic: Path, shm_dir: Path) -> Iterator[Callable[..., Writer]]:
    """Starts writers; ends those that are left."""
    writers: list[Writer] = []

    def start(ring: str = "front", *options: str) -> Writer:
        writers.append(Writer(synthetic, ring, shm_dir, *options))
        return writers[-1]

    yield start
    for left in writers:
        left.end()
