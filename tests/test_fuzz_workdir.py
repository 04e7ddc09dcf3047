"""Every reader of files of a workdir on changed files, as `test_fuzz_readers` for the library."""

import pytest
from fuzzing import check_changed, check_valid
from limited import Limited
from workdir_readers import READERS


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(name, tmp_path):
    check_valid(READERS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_changed_files_are_read_or_refused_by_name(name, tmp_path):
    check_changed(READERS[name], tmp_path, max_examples=15)


@pytest.mark.hour
@pytest.mark.parametrize("name", READERS)
def test_no_changed_file_takes_much_time_or_memory(name, tmp_path, limited):
    check_changed(READERS[name], tmp_path, max_examples=300, read=limited(name))


@pytest.fixture(scope="module")
def limited():
    process = Limited("workdir_readers")
    yield process.reading
    process.close()
