"""Writing, zipping, reading and checking of submissions."""

import errno
import os
import pathlib
import shutil
import stat
import struct
import tracemalloc
import zipfile

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pytest
import small

from sgmg_jax.score import common, submission, zips

EXPECTED = [
    ('bear', ('00000', '00005', '00015'), (24, 37), ('0', '1')),
    ('cat', ('00020', '00025'), (9, 16), ('0',)),
]
FILES = sorted(
    submission.mask_path(video, expression, frame)
    for video, frames, _, expressions in EXPECTED
    for expression in expressions
    for frame in frames
)


def masks_of(video, expression):
    _, frames, size, _ = next(row for row in EXPECTED if row[0] == video)
    return np.random.default_rng(len(video) + int(expression)).random((len(frames), *size)) < 0.3


@pytest.fixture
def root(tmp_path):
    """A folder with a right submission in it."""
    for video, frames, _, expressions in EXPECTED:
        for expression in expressions:
            submission.write_masks(tmp_path / 'run', video, expression, frames, masks_of(video, expression))
    return tmp_path / 'run'


def check(path, expected=EXPECTED):
    return submission.check_submission(path, expected)


def everything_under(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*'))


def only(problems):
    assert len(problems) == 1, common.format_problems(problems)
    return problems[0]


def test_written_files(root):
    assert [name for name in everything_under(root) if name.endswith('.png')] == FILES
    assert not list(root.glob('.*'))
    for video, frames, _, expressions in EXPECTED:
        for expression in expressions:
            for frame, mask in zip(frames, masks_of(video, expression)):
                with Image.open(root / submission.mask_path(video, expression, frame)) as image:
                    assert image.mode == 'L' and image.format == 'PNG'
                    np.testing.assert_array_equal(np.asarray(image), np.where(mask, 255, 0))


def test_masks_may_come_window_by_window(root):
    masks = masks_of('bear', '0')
    for start in (0, 2):
        submission.write_masks(root, 'bear', '8', EXPECTED[0][1][start:start + 2], masks[start:start + 2])
    assert [path.read_bytes() for path in sorted((root / 'Annotations/bear/8').iterdir())] == [
        path.read_bytes() for path in sorted((root / 'Annotations/bear/0').iterdir())]


def test_maps_have_the_colours_of_davis(tmp_path):
    maps = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    submission.write_maps(tmp_path / 'anno_0', 'bear', ('00000', '00001'), maps)
    with Image.open(tmp_path / 'anno_0/bear/00001.png') as image:
        assert image.mode == 'P'
        np.testing.assert_array_equal(np.asarray(image), maps[1])
        # The colours of PASCAL VOC, as its development kit lists them.
        assert image.getpalette()[:27] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128,
                                           0, 128, 128, 128, 128, 128, 64, 0, 0]
        assert image.getpalette()[-3:] == [224, 224, 192]
    with pytest.raises(ValueError, match='maps must be uint8'):
        submission.write_maps(tmp_path, 'bear', ('0',), np.zeros((1, 2, 2), bool))


@pytest.mark.parametrize(
    'names, masks, match',
    [
        (('0', '1'), np.zeros((2, 4, 4), np.uint8), 'uint8'),
        (('0', '1'), np.zeros((3, 4, 4), bool), '3 masks for 2'),
        (('0', '0'), np.zeros((2, 4, 4), bool), '1 distinct'),
        (('0', '../1'), np.zeros((2, 4, 4), bool), "must be one name, not a path, is '../1'"),
    ],
)
def test_write_refuses(tmp_path, names, masks, match):
    with pytest.raises(ValueError, match=match):
        submission.write_masks(tmp_path / 'run', 'bear', '7', names, masks)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    'name', ['', '.', '..', '../x', '/x', 'a/b', 'a\\b', '.x', 'a\n', '\x1b[2J', '\ud800', None, 3])
def test_names_of_the_data_set_cannot_lead_elsewhere(tmp_path, name):
    masks, maps = np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), np.uint8)
    for video, expression, frame in ((name, '0', '0'), ('bear', name, '0'), ('bear', '0', name)):
        with pytest.raises(ValueError, match='must .*Rename it'):
            submission.write_masks(tmp_path / 'run', video, expression, [frame], masks)
        if expression != name:
            with pytest.raises(ValueError, match='must .*Rename it'):
                submission.write_maps(tmp_path / 'run', video, [frame], maps)
    assert not (tmp_path / 'run').exists()


def test_files_are_readable_by_others(root):
    before = os.umask(0o022)
    try:
        submission.write_masks(root, 'bear', '9', ('0',), np.ones((1, 4, 4), bool))
        submission.zip_submission(root, root / 'a.zip')
    finally:
        os.umask(before)
    for path in (root / 'Annotations/bear/9/0.png', root / 'a.zip'):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def fill_disk_after(monkeypatch, count):
    """Pillow's next `count` saves work, then the disk is full, with half of a file written."""
    save, left = Image.Image.save, [count]

    def limited(self, path, *args, **kwargs):
        if not left[0]:
            pathlib.Path(path).write_bytes(b'\x89PNG half')
            raise OSError(errno.ENOSPC, 'No space left on device')
        left[0] -= 1
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(Image.Image, 'save', limited)


def test_full_disk_leaves_no_half_mask(root, monkeypatch):
    before = everything_under(root)
    fill_disk_after(monkeypatch, 2)
    with pytest.raises(OSError, match='No space left') as caught:
        submission.write_masks(root, 'bear', '9', ('0', '1', '2'), np.ones((3, 4, 4), bool))
    assert caught.value.errno == errno.ENOSPC and caught.value.filename.endswith('Annotations/bear/9/2.png')
    new = set(everything_under(root)) - set(before)
    assert new == {'Annotations/bear/9', 'Annotations/bear/9/0.png', 'Annotations/bear/9/1.png'}


def test_zip_holds_the_folder_and_is_deterministic(root, tmp_path):
    (root / 'scores.json').write_text('{}')
    (root / 'Annotations/bear/.DS_Store').write_bytes(b'')
    (root / 'Annotations/bear/0/._00000.png').write_bytes(b'')
    assert submission.zip_submission(root, tmp_path / 'a.zip') == len(FILES)
    with zipfile.ZipFile(tmp_path / 'a.zip') as archive:
        assert archive.namelist() == FILES and archive.testzip() is None
        assert all(archive.read(name) == (root / name).read_bytes() for name in FILES)
    for path in root.rglob('*'):
        os.utime(path, (0, 0))
    submission.zip_submission(root, tmp_path / 'b.zip')
    assert (tmp_path / 'a.zip').read_bytes() == (tmp_path / 'b.zip').read_bytes()


def test_full_disk_leaves_no_half_zip(root, tmp_path, monkeypatch):
    (tmp_path / 'out').mkdir()
    path = tmp_path / 'out/a.zip'
    path.write_bytes(b'earlier')
    monkeypatch.setattr(
        zipfile.ZipFile,
        'writestr',
        lambda *args, **kwargs: (_ for _ in ()).throw(OSError(errno.ENOSPC, 'No space left')),
    )
    with pytest.raises(OSError, match='No space left') as caught:
        submission.zip_submission(root, path)
    assert caught.value.filename == str(path)
    assert everything_under(tmp_path / 'out') == ['a.zip'] and path.read_bytes() == b'earlier'


def test_zip_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match='no mask'):
        submission.zip_submission(tmp_path, tmp_path / 'a.zip')
    assert everything_under(tmp_path) == []


def test_links_are_not_zipped(root, tmp_path):
    mask = root / 'Annotations/bear/0/00000.png'
    mask.rename(mask.with_name('other'))
    mask.symlink_to(mask.with_name('other'))  # within the submission
    submission.zip_submission(root, tmp_path / 'a.zip')
    assert check(tmp_path / 'a.zip') == []
    mask.unlink()
    mask.symlink_to('/etc/passwd')
    with pytest.raises(ValueError, match=r'00000\.png: is a link to .*passwd, outside of'):
        submission.zip_submission(root, tmp_path / 'b.zip')
    mask.unlink()
    os.mkfifo(mask)
    with pytest.raises(ValueError, match=r'00000\.png: is a pipe'):
        submission.zip_submission(root, tmp_path / 'b.zip')
    mask.unlink()
    (root / 'Annotations/dog').symlink_to(root / 'Annotations/bear')
    with pytest.raises(ValueError, match='Annotations/dog: is a link to another folder'):
        submission.zip_submission(root, tmp_path / 'b.zip')
    (root / 'Annotations').rename(root / 'elsewhere')
    (root / 'Annotations').symlink_to(root / 'elsewhere')
    with pytest.raises(ValueError, match='Annotations: is a link to another folder'):
        submission.zip_submission(root, tmp_path / 'b.zip')
    assert not (tmp_path / 'b.zip').exists()


def test_folder_and_zip_read_alike(root, tmp_path):
    submission.zip_submission(root, tmp_path / 'a.zip')
    (root / 'scores.json').write_text('{}')  # Beside Annotations/: no part of the submission.
    (root / 'Annotations/bear/1/00005.png').unlink()
    with (
        submission.open_submission(root) as folder,
        submission.open_submission(tmp_path / 'a.zip') as archive,
    ):
        assert set(archive.files) - set(folder.files) == {'Annotations/bear/1/00005.png'}
        assert set(folder.files) < set(archive.files)
        for name in folder.files:
            assert folder.read(name) == archive.read(name)
        for opened in (folder, archive):
            np.testing.assert_array_equal(
                submission.read_mask(opened, 'cat', '0', '00025'), masks_of('cat', '0')[1]
            )
            with pytest.raises(ValueError, match='Annotations/cat/0/00030.png'):
                submission.read_mask(opened, 'cat', '0', '00030')


def test_open_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such submission'):
        with submission.open_submission(tmp_path / 'none.zip'):
            pass
    (tmp_path / 'text.zip').write_text('not a zip')
    with pytest.raises(ValueError, match='text.zip: neither a folder nor a readable zip'):
        with submission.open_submission(tmp_path / 'text.zip'):
            pass
    os.mkfifo(tmp_path / 'pipe.zip')
    with pytest.raises(ValueError, match='pipe.zip: is a pipe'):
        with submission.open_submission(tmp_path / 'pipe.zip'):
            pass


def remove_video(root):
    shutil.rmtree(root / 'Annotations/cat')


def remove_expression(root):
    shutil.rmtree(root / 'Annotations/bear/1')


def remove_frames(root):
    (root / 'Annotations/bear/1/00000.png').unlink()
    (root / 'Annotations/cat/0/00025.png').unlink()


def add_video(root):
    shutil.copytree(root / 'Annotations/cat', root / 'Annotations/dog')


def add_expression(root):
    shutil.copytree(root / 'Annotations/cat/0', root / 'Annotations/cat/1')


def add_files(root):
    shutil.copy(root / 'Annotations/cat/0/00020.png', root / 'Annotations/cat/0/00000.png')
    (root / 'Annotations/readme.txt').write_text('hello')


def save(root, array, mode=None):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(root / 'Annotations/cat/0/00020.png')


def truncate(root):
    path = root / 'Annotations/cat/0/00020.png'
    path.write_bytes(path.read_bytes()[:-30])


FAULTS = [
    ('missing video', remove_video, 1, 'Annotations/cat'),
    ('missing expression', remove_expression, 1, 'Annotations/bear/1'),
    ('missing frame', remove_frames, 2, 'Annotations/bear/1/00000.png'),
    ('unexpected video', add_video, 1, 'Annotations/dog'),
    ('unexpected expression', add_expression, 1, 'Annotations/cat/1'),
    ('unexpected file', add_files, 2, 'Annotations/cat/0/00000.png'),
    (
        'wrong size',
        lambda root: save(root, np.zeros((16, 9), np.uint8)),
        1,
        'H x W is 16 x 9, of its frames 9 x 16',
    ),
    ('wrong mode', lambda root: save(root, np.zeros((9, 16, 3), np.uint8)), 1, 'mode RGB'),
    ('wrong mode', lambda root: save(root, np.zeros((9, 16), np.uint8), 'P'), 1, 'mode P'),
    ('wrong mode', lambda root: save(root, np.zeros((9, 16), bool)), 1, 'mode 1'),
    ('wrong mode', lambda root: save(root, np.zeros((9, 16), np.uint16)), 1, 'mode I;16'),
    (
        'values other than 0 and 255',
        lambda root: save(root, np.eye(9, 16, dtype=np.uint8)),
        1,
        '1 others, from 1 on',
    ),
    ('unreadable PNG', truncate, 1, 'Annotations/cat/0/00020.png'),
    (
        'unreadable PNG',
        lambda root: (root / 'Annotations/cat/0/00020.png').write_bytes(b''),
        1,
        'cat/0/00020.png',
    ),
    (
        'unreadable PNG',
        lambda root: Image.new('L', (16, 9)).save(root / 'Annotations/cat/0/00020.png', 'JPEG'),
        1,
        'cat/0/00020.png',
    ),
    (
        "operating system's junk",
        lambda root: (root / 'Annotations/cat/.DS_Store').write_bytes(b''),
        1,
        '.DS_Store',
    ),
]


@pytest.mark.parametrize('kind, fault, count, example', FAULTS)
@pytest.mark.parametrize('zipped', [False, True], ids=['folder', 'zip'])
def test_each_fault_is_found(root, tmp_path, kind, fault, count, example, zipped):
    assert check(root) == []
    fault(root)
    path = root
    if zipped:
        path = shutil.make_archive(tmp_path / 'made', 'zip', root, 'Annotations')
    problem = only(check(path))
    assert problem.kind == kind and problem.count == count and problem.mend
    assert example in problem.examples[0]


def test_all_junk_is_reported(root):
    for name in ('.DS_Store', 'Thumbs.db', 'desktop.ini', '0/._00020.png', '0/__MACOSX'):
        (root / 'Annotations/cat' / name).write_bytes(b'')
    problem = only(check(root))
    assert problem.kind == "operating system's junk" and problem.count == 5


def test_what_is_no_file_is_not_read(root):
    """Neither waits for a pipe nor follows a link out of the submission."""
    frames = [root / 'Annotations/bear/0' / f'{name}.png' for name in EXPECTED[0][1]]
    secret = root.parent / 'secret.png'
    frames[0].rename(secret)
    frames[0].symlink_to(secret)
    frames[1].unlink()
    os.mkfifo(frames[1])
    frames[2].unlink()
    frames[2].symlink_to('nowhere')
    problem = only(check(root))
    assert problem.kind == 'unreadable PNG' and problem.count == 3
    for example, words in zip(problem.examples, ('outside of', 'is a pipe', 'No such file')):
        assert words in example
    with submission.open_submission(root) as opened:
        for name in ('../secret.png', str(secret), 'Annotations/bear', ''):
            with pytest.raises(FileNotFoundError, match='no such file'):
                opened.read(name)
        with pytest.raises(ValueError, match='cannot read Annotations/bear/0/00000.png .*outside of'):
            submission.read_mask(opened, 'bear', '0', '00000')
    (root / 'Annotations/dog').symlink_to(root / 'Annotations')
    with pytest.raises(ValueError, match='Annotations/dog: is a link to another folder'):
        check(root)


def test_a_folder_that_cannot_be_read_is_not_passed_over(root, monkeypatch):
    scandir = os.scandir

    def fail(path):
        if os.fspath(path).endswith('bear/1'):
            raise PermissionError(errno.EACCES, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', fail)
    with pytest.raises(PermissionError, match='bear/1'):
        check(root)


def test_a_folder_may_be_a_link_itself(root):
    (root.parent / 'link').symlink_to(root)
    assert check(root.parent / 'link') == []


def test_grey_masks_are_read_at_127(tmp_path):
    (tmp_path / 'Annotations/bear/0').mkdir(parents=True)
    grey = np.array([[0, 1, 126, 127, 128, 129, 254, 255]], np.uint8)
    Image.fromarray(grey).save(tmp_path / 'Annotations/bear/0/00000.png')
    with submission.open_submission(tmp_path) as opened:
        for size in (None, (1, 8)):
            mask = submission.read_mask(opened, 'bear', '0', '00000', size)
            assert mask.dtype == bool and mask.tolist() == [[False] * 4 + [True] * 4]
        with pytest.raises(ValueError, match=r'00000.png is \(1, 8\) \(H, W\), its frame \(8, 1\)'):
            submission.read_mask(opened, 'bear', '0', '00000', (8, 1))
        Image.fromarray(grey).convert('P').save(tmp_path / 'Annotations/bear/0/00000.png')
        with pytest.raises(ValueError, match='mode P, not L'):
            submission.read_mask(opened, 'bear', '0', '00000')


def test_pixels_of_a_wrong_size_are_not_decoded(root, monkeypatch):
    for frame, mode in (('00000', 'L'), ('00005', 'RGB')):
        Image.new(mode, (3000, 2000)).save(root / f'Annotations/bear/0/{frame}.png')
    Image.new('RGB', (37, 24)).save(root / 'Annotations/bear/0/00015.png')
    expected = [('bear', EXPECTED[0][1], (24, 37), ('0',))]
    shutil.rmtree(root / 'Annotations/cat')
    shutil.rmtree(root / 'Annotations/bear/1')
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', lambda self: pytest.fail('pixels were decoded'))
    assert {problem.kind: problem.count for problem in check(root, expected)} == {'wrong size': 2, 'wrong mode': 2}


def zip_of(path, files):
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path


def test_top_folder_of_a_zip(root, tmp_path):
    files = [(name, (root / name).read_bytes()) for name in FILES]
    assert check(zip_of(tmp_path / 'right.zip', files)) == []

    problem = only(
        check(zip_of(tmp_path / 'wrapped.zip', [(f'run/out/{name}', data) for name, data in files]))
    )
    assert problem.kind == 'wrong top folder' and 'run/out/' in problem.mend
    for prefix in ('', 'valid/'):
        moved = [(prefix + name.removeprefix('Annotations/'), data) for name, data in files]
        problem = only(check(zip_of(tmp_path / 'moved.zip', moved)))
        assert problem.kind == 'wrong top folder' and 'Annotations/' in problem.mend

    problem = only(check(zip_of(tmp_path / 'mac.zip', [*files, ('__MACOSX/Annotations/bear/._0', b'')])))
    assert problem.kind == "operating system's junk" and problem.examples == (
        '__MACOSX/Annotations/bear/._0',
    )
    problem = only(check(zip_of(tmp_path / 'more.zip', [*files, ('scores.json', b'{}')])))
    assert problem.kind == 'file outside Annotations/' and problem.examples == ('scores.json',)
    for others in ([], [('a.txt', b'')]):
        problem = only(check(zip_of(tmp_path / 'other.zip', others)))
        assert problem.kind == 'wrong top folder' and 'right folder or zip' in problem.mend


def test_faults_under_a_wrong_top_folder_are_found_too(root, tmp_path):
    (root / 'Annotations/bear/0/00005.png').unlink()
    save(root, np.zeros((16, 9), np.uint8))
    path = shutil.make_archive(tmp_path / 'made', 'zip', root.parent, root.name)
    assert [problem.kind for problem in check(path)] == ['wrong top folder', 'missing frame', 'wrong size']
    # The folder Annotations itself given instead of the one that holds it.
    assert [problem.kind for problem in check(root / 'Annotations')] == [
        'wrong top folder',
        'missing frame',
        'wrong size',
    ]


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_file_twice_in_a_zip(root, tmp_path):
    files = [(name, (root / name).read_bytes()) for name in FILES]
    problem = only(check(zip_of(tmp_path / 'twice.zip', files + files[:1])))
    assert problem.kind == 'file twice in the zip' and problem.examples == (FILES[0],)


def test_damaged_member_of_a_zip(root, tmp_path):
    path = zip_of(tmp_path / 'a.zip', [(name, (root / name).read_bytes()) for name in FILES])
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo(FILES[2]).header_offset
    data = bytearray(path.read_bytes())
    data[offset + 30 + len(FILES[2]) + 50] ^= 0xFF  # A byte of the PNG, after the zip's own header.
    path.write_bytes(data)
    problem = only(check(path))
    assert problem.kind == 'unreadable PNG' and FILES[2] in problem.examples[0]


def test_many_faults_stay_few_lines(root):
    frames = tuple(f'{number:05}' for number in range(20_000))
    problems = check(root, [('bear', frames, (24, 37), ('0', '1')), EXPECTED[1]])
    counts = {problem.kind: problem.count for problem in problems}
    assert counts == {'missing frame': 2 * (20_000 - 3)}
    text = common.format_problems(problems)
    assert 'missing frame: 39,994' in text and '... and 39,991 more' in text and len(text.splitlines()) < 10
    assert common.format_problems([]) == ''


def test_names_cannot_write_to_a_terminal():
    problem = common.Problem('unexpected file', 4, ('a\x1b[2Jb', 'c\nd\te', '\ud800' + 'x' * 1000), '\x1b]0;')
    text = common.format_problems([problem])
    assert text.splitlines() == [
        'unexpected file: 4', r'    a\x1b[2Jb', r'    c\nd\te', rf'    \ud800{"x" * 292}..', '    ... and 1 more',
        r'    to mend: \x1b]0;']
    text.encode()


def altered(path, offset, layout, *values):
    """A zip of one file with other values in its list of files, and where they are repeated before the file."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, data.rindex(b'PK\x01\x02') + offset, *values)
    if offset < 30:
        struct.pack_into(layout, data, data.index(b'PK\x03\x04') + offset - 2, *values)
    path.write_bytes(data)
    return path


NAME = 'Annotations/cat/0/00020.png'
ONE = [('cat', ('00020',), (9, 16), ('0',))]
BLACK = small.encoded(np.zeros((9, 16), np.uint8), 'PNG')


def one(path, data=BLACK, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr(NAME, data)
    return path


@pytest.mark.parametrize('make, reason', [
    (lambda path: altered(one(path), 8, '<H', 1), 'it is encrypted'),
    (lambda path: one(path, compression=zipfile.ZIP_BZIP2), 'not compressed by deflate'),
    (lambda path: one(path, compression=zipfile.ZIP_LZMA), 'not compressed by deflate'),
    (lambda path: altered(one(path), 10, '<H', 99), 'not compressed by deflate'),
    (lambda path: altered(one(path), 24, '<I', 2 ** 32 - 2), 'it has 4,294,967,294 bytes, at most 67,108,864'),
    (lambda path: altered(one(path), 20, '<I', 2 ** 32 - 2), 'it has 4,294,967,294 bytes, at most'),
    (lambda path: altered(one(path), 24, '<I', len(BLACK) + 1), f'it has {len(BLACK)} bytes, though the zip says'),
    (lambda path: altered(one(path), 24, '<I', len(BLACK) - 1), 'Bad CRC-32'),
    (lambda path: altered(one(path), 38, '<I', (stat.S_IFLNK | 0o777) << 16), 'it is a link or a device'),
    (lambda path: altered(one(path), 42, '<I', 10 ** 6), 'Truncated|magic|file header'),
], ids=range(10))
def test_members_that_lie(tmp_path, make, reason):
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


def test_a_member_takes_no_more_memory_than_it_says(tmp_path):
    path = altered(one(tmp_path / 'a.zip', bytes(2 ** 27)), 24, '<I', 100)
    tracemalloc.start()
    try:
        with submission.open_submission(path) as opened:
            with pytest.raises(ValueError, match='CRC'):
                opened.read(NAME)
        assert tracemalloc.get_traced_memory()[1] < 2 ** 23
    finally:
        tracemalloc.stop()


def test_limits_of_a_zip(tmp_path, monkeypatch):
    path = one(tmp_path / 'a.zip')
    assert check(path, ONE) == []
    monkeypatch.setattr(submission, 'LARGEST_SUBMISSION', len(BLACK) - 1)
    with pytest.raises(ValueError, match=rf'a.zip: its files have {len(BLACK)} bytes when unpacked'):
        check(path, ONE)
    monkeypatch.setattr(submission, 'LARGEST_SUBMISSION', len(BLACK))
    assert check(path, ONE) == []
    with path.open('ab') as file:
        file.truncate(2 ** 26)
        file.seek(2 ** 26)
        file.write(struct.pack('<4s4H2LH', b'PK\x05\x06', 0, 0, 1, 1, 2 ** 26 - 1000, 0, 0))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match='a.zip: .*its list of files has 67,107,864 bytes'):
            check(path, ONE)
        assert tracemalloc.get_traced_memory()[1] < 2 ** 23
    finally:
        tracemalloc.stop()


def test_only_the_list_of_files_is_bounded_by_its_limit(tmp_path, monkeypatch):
    content = bytes(range(256)) * 2000
    path = one(tmp_path / 'a.zip', content, zipfile.ZIP_STORED)
    monkeypatch.setattr(zips, 'LARGEST_INDEX', 46 + len(NAME))
    with submission.open_submission(path) as opened:
        assert opened.read(NAME) == content
    monkeypatch.setattr(zips, 'LARGEST_INDEX', 45 + len(NAME))
    with pytest.raises(ValueError, match='its list of files has 73 bytes, at most 72 are read'):
        check(path, ONE)


@pytest.mark.parametrize('name', ['../Annotations/cat/0/00020.png', '/Annotations/cat/0/00020.png',
                                  'Annotations//cat/0/00020.png', 'Annotations/./cat/0/00020.png',
                                  'Annotations\\cat\\0\\00020.png', 'Annotations/cat/../../x.png'])
def test_paths_that_lead_elsewhere(tmp_path, name):
    path = zip_of(tmp_path / 'a.zip', [(NAME, BLACK), (name, BLACK)])
    problem = only(check(path, ONE))
    assert problem.kind == 'path that leads elsewhere' and problem.examples == (name,)


def test_a_name_of_nothing(tmp_path):
    info = zipfile.ZipInfo('x')
    info.filename = ''
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr(NAME, BLACK)
        archive.writestr(info, b'')
    assert only(check(tmp_path / 'a.zip', ONE)).kind == 'path that leads elsewhere'


@given(st.data())
def test_damaged_zips_are_named(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('fuzz') / 'a.zip'
    content = bytearray(one(path).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
    path.write_bytes(content[:data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        problems = check(path, ONE)
    except ValueError as error:
        assert str(error).startswith(str(path))
    else:
        common.format_problems(problems).encode()


@given(st.data())
def test_damaged_pngs_are_named(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('fuzz') / 'a.zip'
    content = bytearray(BLACK)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    for problem in check(one(path, bytes(content[:data.draw(st.integers(0, len(content)))])), ONE):
        assert all(example.startswith(NAME) for example in problem.examples)
