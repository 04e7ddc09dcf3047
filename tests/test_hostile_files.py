"""Files of at most 16 MB, read in a process that has a GB more than it needs for any other."""

import pytest
from hostile_files import HOSTILE, LARGEST
from limited import Limited
from readers import READERS, place

pytestmark = pytest.mark.hour


@pytest.fixture(scope="module")
def limited():
    process = Limited("readers")
    yield process
    process.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_no_file_takes_more_than_a_gigabyte_or_half_a_minute(name, tmp_path, limited):
    reader, make = HOSTILE[name]
    place(READERS[reader], tmp_path / "hostile", make())
    assert (tmp_path / "hostile" / READERS[reader].name).stat().st_size <= LARGEST
    said = limited.outcome(reader, tmp_path / "hostile")
    assert not said.startswith("fault"), said
