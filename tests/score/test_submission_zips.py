"""Damaged and hostile zips: what is read of them is bounded, and each fault is named."""

import stat
import struct
import tracemalloc
import zipfile

from hypothesis import given
from hypothesis import strategies as st
import pytest
from submission_files import BLACK, FILES, NAME, ONE, check, only, zip_of, zip_of_one

from sgmg_jax.score import common, submission, zips


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_duplicate_file_in_a_zip(root, tmp_path):
    files = [(name, (root / name).read_bytes()) for name in FILES]
    problem = only(check(zip_of(tmp_path / 'twice.zip', files + files[:1])))
    assert problem.kind == 'file twice in the zip' and problem.examples == (FILES[0],)


def test_damaged_member(root, tmp_path):
    path = zip_of(tmp_path / 'a.zip', [(name, (root / name).read_bytes()) for name in FILES])
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo(FILES[2]).header_offset
    data = bytearray(path.read_bytes())
    data[offset + 30 + len(FILES[2]) + 50] ^= 0xFF  # a byte of the PNG, after its local header
    path.write_bytes(data)
    problem = only(check(path))
    assert problem.kind == 'unreadable PNG' and FILES[2] in problem.examples[0]


def altered(path, offset, layout, *values):
    """A zip of one file with other values in its central directory and, if they occur there, in its local header."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, data.rindex(b'PK\x01\x02') + offset, *values)
    if offset < 30:
        struct.pack_into(layout, data, data.index(b'PK\x03\x04') + offset - 2, *values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    'make, reason',
    [
        (lambda path: altered(zip_of_one(path), 8, '<H', 1), 'it is encrypted'),
        (lambda path: zip_of_one(path, compression=zipfile.ZIP_BZIP2), 'not compressed with deflate'),
        (lambda path: zip_of_one(path, compression=zipfile.ZIP_LZMA), 'not compressed with deflate'),
        (lambda path: altered(zip_of_one(path), 10, '<H', 99), 'not compressed with deflate'),
        (
            lambda path: altered(zip_of_one(path), 24, '<I', 2**32 - 2),
            'it has 4,294,967,294 bytes, must have at most 67,108,864',
        ),
        (lambda path: altered(zip_of_one(path), 20, '<I', 2**32 - 2), 'it has 4,294,967,294 bytes, must have at most'),
        (
            lambda path: altered(zip_of_one(path), 24, '<I', len(BLACK) + 1),
            f'it has {len(BLACK)} bytes, but the zip declares',
        ),
        (lambda path: altered(zip_of_one(path), 24, '<I', len(BLACK) - 1), 'Bad CRC-32'),
        (lambda path: altered(zip_of_one(path), 38, '<I', (stat.S_IFLNK | 0o777) << 16), 'it is a link or a device'),
        (lambda path: altered(zip_of_one(path), 42, '<I', 10**6), 'Truncated|magic|file header'),
    ],
    ids=range(10),
)
def test_members_with_false_headers(tmp_path, make, reason):
    path = make(tmp_path / 'a.zip')
    problem = only(check(path, ONE))
    assert (problem.kind, problem.count) == ('unreadable PNG', 1)
    assert problem.examples[0].startswith(f'{NAME}: ')
    with pytest.raises(ValueError, match=reason):
        with submission.open_submission(path) as opened:
            opened.read(NAME)
    with submission.open_submission(path) as opened:
        with pytest.raises(FileNotFoundError, match='no such file in the zip'):
            opened.read('x')


def test_member_memory_is_bounded_by_its_header(tmp_path):
    path = altered(zip_of_one(tmp_path / 'a.zip', bytes(2**27)), 24, '<I', 100)
    tracemalloc.start()
    try:
        with submission.open_submission(path) as opened:
            with pytest.raises(ValueError, match='CRC'):
                opened.read(NAME)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_size_limits(tmp_path, monkeypatch):
    path = zip_of_one(tmp_path / 'a.zip')
    assert check(path, ONE) == []
    monkeypatch.setattr(submission, 'LARGEST_SUBMISSION', len(BLACK) - 1)
    with pytest.raises(ValueError, match=rf'a.zip: its files have {len(BLACK)} bytes uncompressed'):
        check(path, ONE)
    monkeypatch.setattr(submission, 'LARGEST_SUBMISSION', len(BLACK))
    assert check(path, ONE) == []
    with path.open('ab') as file:
        file.truncate(2**26)
        file.seek(2**26)
        file.write(struct.pack('<4s4H2LH', b'PK\x05\x06', 0, 0, 1, 1, 2**26 - 1000, 0, 0))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match='a.zip: .*its list of files has 67,107,864 bytes'):
            check(path, ONE)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_index_limit_does_not_bound_the_members(tmp_path, monkeypatch):
    content = bytes(range(256)) * 2000
    path = zip_of_one(tmp_path / 'a.zip', content, zipfile.ZIP_STORED)
    monkeypatch.setattr(zips, 'LARGEST_INDEX', 46 + len(NAME))
    with submission.open_submission(path) as opened:
        assert opened.read(NAME) == content
    monkeypatch.setattr(zips, 'LARGEST_INDEX', 45 + len(NAME))
    with pytest.raises(ValueError, match='its list of files has 73 bytes, must have at most 72'):
        check(path, ONE)


@pytest.mark.parametrize(
    'name',
    [
        '../Annotations/cat/0/00020.png',
        '/Annotations/cat/0/00020.png',
        'Annotations//cat/0/00020.png',
        'Annotations/./cat/0/00020.png',
        'Annotations\\cat\\0\\00020.png',
        'Annotations/cat/../../x.png',
    ],
)
def test_path_traversal_is_reported(tmp_path, name):
    path = zip_of(tmp_path / 'a.zip', [(NAME, BLACK), (name, BLACK)])
    problem = only(check(path, ONE))
    assert problem.kind == 'path outside of the zip' and problem.examples == (name,)


def test_empty_name_is_reported(tmp_path):
    info = zipfile.ZipInfo('x')
    info.filename = ''
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr(NAME, BLACK)
        archive.writestr(info, b'')
    assert only(check(tmp_path / 'a.zip', ONE)).kind == 'path outside of the zip'


@given(st.data())
def test_damaged_zips_are_refused_or_reported(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('fuzz') / 'a.zip'
    content = bytearray(zip_of_one(path).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        problems = check(path, ONE)
    except ValueError as error:
        assert str(error).startswith(str(path))
    else:
        common.format_problems(problems).encode()


@given(st.data())
def test_damaged_pngs_are_reported(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('fuzz') / 'a.zip'
    content = bytearray(BLACK)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    for problem in check(zip_of_one(path, bytes(content[: data.draw(st.integers(0, len(content)))])), ONE):
        assert all(example.startswith(NAME) for example in problem.examples)
