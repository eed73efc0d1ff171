"""Untrusted files: text, JSON, names; locks and atomic writes."""

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
import pytest

from sgmg_jax import files


def test_written_files_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        with files.replacing(tmp_path / 'a.json') as partial:
            partial.touch(0o600)
        assert stat.S_IMODE((tmp_path / 'a.json').stat().st_mode) == 0o644
    finally:
        os.umask(before)


def test_equal_process_ids_do_not_share_a_temporary_file(tmp_path):
    with files.replacing(tmp_path / 'a') as one, files.replacing(tmp_path / 'a') as two:  # as on two hosts
        assert one != two
        one.write_text('one')
        two.write_text('two')
    assert (tmp_path / 'a').read_text() == 'one'
    assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_a_failed_write_names_the_file_and_leaves_nothing(tmp_path):
    (tmp_path / 'a').write_text('before')
    with pytest.raises(OSError, match='Free some space.*before|Free some space') as caught:
        with files.replacing(tmp_path / 'a') as partial:
            partial.write_text('half')
            raise OSError(errno.ENOSPC, 'No space left on device')
    assert caught.value.filename == str(tmp_path / 'a')
    assert (tmp_path / 'a').read_text() == 'before'
    assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match='Check the path') as caught:
        with files.replacing(tmp_path / 'file' / 'a.json') as partial:
            partial.write_text('x')
    assert caught.value.filename == str(tmp_path / 'file' / 'a.json')


def test_check_new_accepts_writable_paths(tmp_path):
    (tmp_path / 'file').touch()
    (tmp_path / 'dangling').symlink_to('nowhere')
    for path in (tmp_path / 'a', tmp_path / 'new' / 'folder' / 'a.x'):
        assert files.check_new(str(path)) == path
    assert files.check_new(tmp_path / 'a.x', ('', '.x')) == tmp_path / 'a.x'
    for name in ('file', 'dangling', '.'):
        with pytest.raises(FileExistsError, match='exists already'):
            files.check_new(tmp_path / name)
    with pytest.raises(ValueError, match='a.y: must end in no suffix or .x'):
        files.check_new(tmp_path / 'a.y', ('', '.x'))
    for path, folder in ((tmp_path / 'file' / 'a', tmp_path / 'file'), ('/proc/new/a', '/proc')):
        with pytest.raises(OSError) as caught:
            files.check_new(path)
        assert caught.value.filename == str(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['dangling', 'file']


HOLD = """
import sys
from sgmg_jax import files
with files.locked(sys.argv[1], 'training'):
    print('held', flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_by_one_process_and_dies_with_it(tmp_path):
    path = tmp_path / 'run' / '.lock'
    holder = subprocess.Popen([sys.executable, '-c', HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b'held\n'
        with pytest.raises(BlockingIOError, match=f'process {holder.pid} .*, training, is at work here'):
            with files.locked(path, 'evaluating'):
                pass
    finally:
        holder.kill()
        holder.communicate()
    with files.locked(path, 'evaluating'):
        with pytest.raises(BlockingIOError, match=f'process {os.getpid()} .*evaluating'):
            with files.locked(path, 'evaluating'):
                pass
    with files.locked(path, 'evaluating'):
        pass


@pytest.mark.parametrize(
    'data', [b'a\nb\n', b'\xef\xbb\xbfa\nb\n', 'a\nb\n'.encode('utf-16'), b'a\r\nb\r\n', b'a\rb\r']
)
def test_line_ends_and_byte_order_marks_are_normalised(tmp_path, data):
    (tmp_path / 'a.txt').write_bytes(data)
    assert files.read_text(tmp_path / 'a.txt') == 'a\nb\n'


def test_text_of_another_encoding_is_named(tmp_path):
    (tmp_path / 'a.txt').write_bytes('é'.encode('latin-1'))
    with pytest.raises(ValueError, match=r'a\.txt: is not text in utf-8'):
        files.read_text(tmp_path / 'a.txt')
    assert files.read_text(tmp_path / 'a.txt', 'latin-1') == 'é'


def test_json_is_read_with_a_byte_order_mark(tmp_path):
    (tmp_path / 'a.json').write_bytes(b'\xef\xbb\xbf{"a": [1, "\xc3\xa9"]}')
    assert files.read_json(tmp_path / 'a.json') == {'a': [1, 'é']}


@pytest.mark.parametrize(
    'text, reason',
    [
        ('', 'it is empty'),
        ('{"a": 1', 'delimiter'),
        ('[NaN]', 'NaN is no number'),
        ('[-Infinity]', 'no number'),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' is there twice"),
        ('[' * 100_000, 'too many levels'),
        ('{"a":' * 100_000, 'too many levels'),
        ('1' * 5000, 'digits'),
    ],
)
def test_json_that_is_wrong_is_named(tmp_path, text, reason):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(ValueError, match=r'a\.json: .*' + reason):
        files.read_json(tmp_path / 'a.json')


@pytest.mark.parametrize(
    'unit', ['[]', '{}', '{"":{}}', '{"a":1}', '[[]]', '"ab"', '1.5', '[[],[]]', '{"a":1,"b":2}', '"éé"']
)
def test_json_of_more_values_than_memory_is_refused(monkeypatch, unit):
    text = f'[{",".join([unit] * 20_000)}]'
    tracemalloc.start()
    try:
        values = files.parse_json(text, 'a.json')
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(values) == 20_000
    monkeypatch.setattr(files, 'MOST_MEMORY', taken)
    with pytest.raises(ValueError, match='a.json: is JSON of too many values, which may take .* bytes'):
        files.parse_json(text.encode(), 'a.json')
    monkeypatch.setattr(files, 'MOST_MEMORY', 4 * taken)
    assert files.parse_json(text, 'a.json') == values


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.fspath(tmp_path / 'socket'))
    for path, kind in (
        (tmp_path / 'pipe', 'a pipe'),
        (tmp_path, 'a folder'),
        ('/dev/zero', 'a device'),
        (tmp_path / 'socket', 'a socket'),
    ):
        with pytest.raises(ValueError, match=f'is {kind}, not a file'):
            files.read_bytes(path)
    server.close()
    with pytest.raises(FileNotFoundError):
        files.read_bytes(tmp_path / 'none')
    (tmp_path / 'large').write_bytes(bytes(11))
    with pytest.raises(ValueError, match='has 11 bytes, at most 10'):
        files.read_bytes(tmp_path / 'large', largest=10)


def test_links_may_not_lead_out_of_a_data_set(tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'secret').write_text('secret')
    (tmp_path / 'data' / 'inside').write_text('inside')
    (tmp_path / 'data' / 'link').symlink_to(tmp_path / 'data' / 'inside')
    (tmp_path / 'data' / 'out').symlink_to(tmp_path / 'secret')
    assert files.read_text(tmp_path / 'data' / 'link', below=tmp_path / 'data') == 'inside'
    assert files.read_text(tmp_path / 'data' / 'out') == 'secret'
    with pytest.raises(ValueError, match=r'out: is a link to .*secret, outside of'):
        files.read_text(tmp_path / 'data' / 'out', below=tmp_path / 'data')
    (tmp_path / 'mounted').symlink_to(tmp_path / 'data')  # a data set on another disk
    assert files.read_text(tmp_path / 'mounted' / 'link', below=tmp_path / 'mounted') == 'inside'


def test_a_listing_is_sorted_and_leaves_out_junk(tmp_path):
    for name in ('b', 'a', '__MACOSX'):
        (tmp_path / name).mkdir()
    for name in ('2.png', '1.png', '._1.png', '.DS_Store', 'Thumbs.db', 'desktop.ini'):
        (tmp_path / name).touch()
    (tmp_path / '3.png').symlink_to('nowhere')
    (tmp_path / 'c').symlink_to('a')
    assert files.listing(tmp_path) == (['a', 'b', 'c'], ['1.png', '2.png', '3.png'])
    with pytest.raises(FileNotFoundError):
        files.listing(tmp_path / 'none')


@pytest.mark.parametrize(
    'name', ['a', '-dash', '#20_Rhythm_clap_u_nm_np1_fr_goo_0', '00005', 'größe', 'with space', '(a)!', 'x' * 200]
)
def test_names_of_the_data_sets_are_valid(name):
    assert files.check_name(name, 'a name') == name


@pytest.mark.parametrize(
    'name',
    [
        '',
        '.',
        '..',
        '../a',
        '/etc/passwd',
        'a/b',
        'a\\b',
        '.hidden',
        '\x1b[2J',
        'a\nb',
        'a\0',
        '\ud800',
        '\u202egnp',
        ' a',
        'a ',
        'x' * 201,
        'é' * 101,
        None,
        5,
        ['a'],
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match='^meta.json: a name must .* Rename it') as caught:
        files.check_name(name, 'meta.json: a name')
    str(caught.value).encode()
    assert '\x1b' not in str(caught.value) and '\n' not in str(caught.value)


@given(st.text())
def test_printable_escapes_control_characters(text):
    shown = files.printable(text)
    shown.encode()
    assert all(c.isprintable() or c in '\n\t' or c.isspace() for c in shown)
    assert not {'\x1b', '\r', '\x07', '\u202e'} & set(shown)
    if text.isprintable():
        assert shown == text


def test_one_line_escapes_line_breaks():
    assert files.one_line('a\x1b[2J\nb\tc\rd') == r'a\x1b[2J\nb\tc\rd'
    assert files.one_line('x' * 300) == 'x' * 300 and files.one_line('x' * 301) == 'x' * 298 + '..'
    assert files.one_line('\ud800' * 10, 20) == r'\ud800' * 3 + '..'
    assert files.one_line('größe', 5) == 'größe' and files.one_line('größen', 5) == 'grö..'


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_parse_json_matches_the_standard_library(value):
    assert files.parse_json(json.dumps(value), 'here') == json.loads(json.dumps(value))


def test_every_csv_line_is_a_row(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_bytes('\ufeffa,"b, ""c""",d\r\n\r\n"x",\'y,"z"'.encode())
    assert files.read_rows(path, 3) == [
        (f'{path}: line 1', ['a', 'b, "c"', 'd']),
        (f'{path}: line 3', ['x', "'y", 'z']),
    ]
    for text, fault in (
        ('a,"b\nc",d', 'line 1: is not CSV'),
        ('a,b,c\n"a"b,c,d', 'line 2: is not CSV'),
        ('a,b,c\na,b', 'line 2: has 2 fields, must have 3'),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf'a\.csv: {fault}'):
            files.read_rows(path, 3)


def test_by_stem_groups_files_by_name_without_ending(tmp_path):
    for name in ('1.jpg', '2.JPG', '2.jpeg', '._3.jpg', '4.png', 'jpg', '5.jpg.txt'):
        (tmp_path / name).touch()
    (tmp_path / '6.jpg').mkdir()
    assert files.by_stem(tmp_path, '.jpg', '.jpeg') == {'1': ['1.jpg'], '2': ['2.JPG', '2.jpeg'], '6': ['6.jpg']}


def test_check_folder_accepts_only_regular_files(tmp_path):
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    (tmp_path / 'a' / 'b' / 'file').touch()
    (tmp_path / 'a' / 'link').symlink_to('b/file')
    files.check_folder(tmp_path)
    files.check_folder(tmp_path / 'nowhere')
    (tmp_path / 'a' / 'dead').symlink_to('nowhere')
    with pytest.raises(FileNotFoundError, match='dead'):
        files.check_folder(tmp_path)
    (tmp_path / 'a' / 'dead').unlink()
    os.mkfifo(tmp_path / 'a' / 'b' / 'pipe')
    with pytest.raises(ValueError, match='a/b/pipe: is a pipe, not a file'):
        files.check_folder(tmp_path)


def test_check_folder_ignores_files_removed_meanwhile(tmp_path, monkeypatch):
    """Another process removes the file after os.walk has listed it."""
    monkeypatch.setattr(os, 'walk', lambda folder: [(str(folder), [], ['gone'])])
    files.check_folder(tmp_path)
