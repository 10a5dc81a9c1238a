from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watcher.domain.errors import DatasetError
from watcher.lightly.workflows.csv_files import (
    build_header,
    check_embeddings_csv,
    check_header,
    iter_csv,
    quote_cell,
    write_embeddings_csv,
)
from watcher.lightly.workflows.csv_index import CsvIndex, check_same_names
from watcher.lightly.workflows.embedding_upload import is_of_family

NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=20)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


# Each example writes the file anew.
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(NAMES, min_size=1, max_size=8, unique=True).flatmap(
        lambda names: st.tuples(
            st.just(names),
            st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=len(names), max_size=len(names)),
            st.lists(st.integers(-5, 5), min_size=len(names), max_size=len(names)),
        )
    )
)
def test_csv_round_trip_of_any_names_and_numbers(tmp_path, rows):
    names, vectors, labels = rows
    path = tmp_path / "e.csv"
    written = write_embeddings_csv(path, names, vectors, labels)
    assert (written.n_rows, written.dim) == (len(names), 3)
    assert check_embeddings_csv(path) == written
    with CsvIndex(path) as index:
        assert list(index) == names
        assert index.is_canonical(names)
        for name, vector, label in zip(names, vectors, labels, strict=True):
            cells = index[name]
            assert [float(cell) for cell in cells[:3]] == vector
            assert int(cells[3]) == label
        turned = io.BytesIO()
        index.write_rows(turned, reversed(names))
    turned.seek(0)
    assert [row[0] for row in iter_csv(turned)][1:] == names[::-1]


def test_32_bit_numbers_read_back_exactly():
    bits = np.random.default_rng(1).integers(0, 1 << 32, (200, 100), dtype=np.uint32)
    array = bits.view(np.float32)
    array = np.where(np.isfinite(array), array, np.float32(1e-45))
    file = io.BytesIO()
    write_embeddings_csv(file, map(str, range(200)), array)
    rows = [line.split(",")[1:-1] for line in file.getvalue().decode().splitlines()[1:]]
    assert (np.array(rows, dtype=np.float32) == array).all()


@settings(max_examples=100)
@given(NAMES)
def test_quoted_cells_read_back(text):
    line = io.BytesIO((quote_cell(text) + ",x\r\n").encode())
    assert next(iter_csv(line)) == [text, "x"]


def test_csv_lines_are_those_of_the_protocol():
    file = io.BytesIO()
    write_embeddings_csv(file, ["a.jpg", "b,c.jpg"], np.array([[0.5, 1], [2, 3]]), [0, 7])
    assert file.getvalue() == (
        b'filenames,embedding_0,embedding_1,labels\r\na.jpg,0.5,1.0,0\r\n"b,c.jpg",2.0,3.0,7\r\n'
    )


@pytest.mark.parametrize(
    ("names", "vectors", "labels", "words"),
    [
        (["a"], [[1.0], [2.0]], None, "more vectors than names"),
        (["a", "b"], [[1.0]], None, "more names"),
        (["a"], [[1.0]], [], "more vectors than labels"),
        (["a"], [[1.0]], [1, 2], "more labels"),
        (["a", "a"], [[1.0], [2.0]], None, "comes twice"),
        ([""], [[1.0]], None, "empty"),
        (["a"], [[float("nan")]], None, "finite"),
        (["a"], [[float("inf")]], None, "finite"),
        (["a", "b"], [[1.0], [1.0, 2.0]], None, "1 finite"),
        (["a"], [[]], None, "vectors are empty"),
        ([], [], None, "no vectors"),
        (["a"], np.zeros((1, 2, 3)), None, "two dimensions"),
    ],
)
def test_write_refuses_what_does_not_fit_and_leaves_the_old_file(tmp_path, names, vectors, labels, words):
    path = tmp_path / "e.csv"
    path.write_bytes(b"old")
    with pytest.raises(DatasetError, match=words):
        write_embeddings_csv(path, names, vectors, labels)
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["e.csv"]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (["filename", "embedding_0", "labels"], "'filenames'"),
        ([], "'filenames'"),
        (["filenames", "embedding_0"], "'labels'"),
        (["filenames", "labels"], "at least one"),
        (["filenames", " embedding_0", "labels"], "blanks"),
        (["filenames", "embedding_0", "labels "], "blanks"),
        (["filenames", "embedding_x", "labels"], "embedding_<number>"),
        (["filenames", "embedding_0", "embedding_0", "labels"], "twice"),
        (["filenames", "labels", "embedding_0"], "at least one"),
    ],
)
def test_wrong_headers_are_told(header, words):
    with pytest.raises(DatasetError, match=words):
        check_header(header)


def test_columns_behind_labels_are_counted():
    assert check_header([*build_header(2), "masks", "x"]).n_extra_columns == 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"filenames,embedding_0,labels\r\na.jpg,1.0\r\n", "row 1"),
        (b"filenames,embedding_0,labels\r\n\r\n", "row 1"),
        (b"filenames,embedding_0,labels\r\na.jpg,1.0,0\r\nb.jpg,x,0\r\n", "row 2"),
        (b"filenames,embedding_0,labels\r\na.jpg,nan,0\r\n", "row 1"),
        (b"filenames,embedding_0,labels\r\na.jpg,1.0,0.5\r\n", "row 1"),
        (b"filenames,embedding_0,labels\r\n,1.0,0\r\n", "row 1"),
        (b'filenames,embedding_0,labels\r\n"a.jpg,1.0,0\r\n', "cannot be read"),
        (b"filenames,embedding_0,labels\r\n\xff\xfe,1.0,0\r\n", "cannot be read"),
    ],
)
def test_broken_files_are_told_by_row(tmp_path, body, words):
    path = tmp_path / "e.csv"
    path.write_bytes(body)
    with pytest.raises(DatasetError, match=words):
        check_embeddings_csv(path)
    with pytest.raises(DatasetError):
        CsvIndex(path)


def test_a_name_that_comes_twice_is_refused_or_the_last_one_wins(tmp_path):
    path = tmp_path / "e.csv"
    path.write_text("filenames,embedding_0,labels\na,1,0\nb,2,0\na,3,0\n")
    with pytest.raises(DatasetError, match="twice"):
        CsvIndex(path)
    with CsvIndex(path, last_wins=True) as index:
        assert index["a"] == ["3", "0"]
        assert list(index) == ["a", "b"]


def test_check_same_names_tells_both_sides():
    with pytest.raises(DatasetError, match=r"1 samples of the dataset have no row.*'b'.*1 rows belong.*'c'"):
        check_same_names({"a": 1, "c": 2}, ["a", "b"])
    check_same_names({"b": 1, "a": 2}, ["a", "b"])


@pytest.mark.parametrize(
    ("name", "base", "same"),
    [
        ("a", "a", True),
        ("a_20220301_10h00m00s", "a", True),
        ("a_20220301_10h00m00s_2", "a", True),
        ("abc", "a", False),
        ("a_b", "a", False),
        ("a_20220301_10h00m00s", "a_20220301", False),
        ("A", "a", False),
    ],
)
def test_families_of_embedding_names(name, base, same):
    assert is_of_family(name, base) is same
