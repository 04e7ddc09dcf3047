"""What people pass by mistake is refused at the door, in a sentence that names it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import front_calls

CASES = front_calls.cases()


@pytest.fixture(scope="module")
def errors():
    """What every call raises where no types are checked, as for users."""
    file = Path(front_calls.__file__)
    ran = subprocess.run(
        [sys.executable, str(file)],
        capture_output=True,
        text=True,
        cwd=file.parents[1],
        env=os.environ | {"PYTHONPATH": str(file.parents[1])},
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_a_sentence(errors, name):
    kind, message = errors[name]
    assert kind == "ValueError", (kind, message[:300])
    assert CASES[name][0] in message
    assert "expected" in message
    assert len(message) < 500
