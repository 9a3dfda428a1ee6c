# SPDX-License-Identifier: Apache-2.0
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "vm"))

import harness  # noqa: E402


@pytest.fixture
def host(tmp_path_factory):
    # A short path: unix sockets below it may have 107 bytes.
    machine = harness.Host(tmp_path_factory.mktemp("h"))
    yield machine
    machine.close()


def pytest_sessionstart(session):
    missing = [str(path) for path in (harness.PROGRAM, harness.IMAGE / "metadata.json") if not path.exists()]
    if missing:
        pytest.exit(f"missing: {', '.join(missing)}; scripts/test builds them", returncode=2)
