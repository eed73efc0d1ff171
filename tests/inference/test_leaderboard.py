"""Writing, zipping, reading and checking of submissions."""

import errno
import os
import pathlib
import shutil
import zipfile

import numpy as np
from PIL import Image
import pytest

from sgmg_jax.inference import leaderboard

EXPECTED = [
    ('bear', ('00000', '00005', '00015'), (24, 37), ('0', '1')),
    ('cat', ('00020', '00025'), (9, 16), ('0',)),
]
FILES = sorted(
    leaderboard.mask_path(video, expression, frame)
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
            leaderboard.write_masks(tmp_path / 'run', video, expression, frames, masks_of(video, expression))
    return tmp_path / 'run'


def check(path, expected=EXPECTED):
    return leaderboard.check_submission(path, expected)


def everything_under(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*'))


def only(problems):
    assert len(problems) == 1, leaderboard.format_problems(problems)
    return problems[0]


def test_written_files(root):
    assert [name for name in everything_under(root) if name.endswith('.png')] == FILES
    assert not list(root.glob('.*'))
    for video, frames, _, expressions in EXPECTED:
        for expression in expressions:
            for frame, mask in zip(frames, masks_of(video, expression)):
                with Image.open(root / leaderboard.mask_path(video, expression, frame)) as image:
                    assert image.mode == 'L' and image.format == 'PNG'
                    np.testing.assert_array_equal(np.asarray(image), np.where(mask, 255, 0))


def test_masks_may_come_window_by_window(root):
    masks = masks_of('bear', '0')
    for start in (0, 2):
        leaderboard.write_masks(root, 'bear', '8', EXPECTED[0][1][start:start + 2], masks[start:start + 2])
    assert [path.read_bytes() for path in sorted((root / 'Annotations/bear/8').iterdir())] == [
        path.read_bytes() for path in sorted((root / 'Annotations/bear/0').iterdir())]


def test_maps_have_the_colours_of_davis(tmp_path):
    maps = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    leaderboard.write_maps(tmp_path / 'anno_0', 'bear', ('00000', '00001'), maps)
    with Image.open(tmp_path / 'anno_0/bear/00001.png') as image:
        assert image.mode == 'P'
        np.testing.assert_array_equal(np.asarray(image), maps[1])
        # The colours of PASCAL VOC, as its development kit lists them.
        assert image.getpalette()[:27] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128,
                                           0, 128, 128, 128, 128, 128, 64, 0, 0]
        assert image.getpalette()[-3:] == [224, 224, 192]
    with pytest.raises(ValueError, match='maps must be uint8'):
        leaderboard.write_maps(tmp_path, 'bear', ('0',), np.zeros((1, 2, 2), bool))


@pytest.mark.parametrize(
    'names, masks, match',
    [
        (('0', '1'), np.zeros((2, 4, 4), np.uint8), 'uint8'),
        (('0', '1'), np.zeros((3, 4, 4), bool), '3 masks for 2'),
        (('0', '0'), np.zeros((2, 4, 4), bool), '1 distinct'),
        (('0', '../1'), np.zeros((2, 4, 4), bool), "'../1' cannot name"),
    ],
)
def test_write_refuses(tmp_path, names, masks, match):
    with pytest.raises(ValueError, match=match):
        leaderboard.write_masks(tmp_path / 'run', 'bear', '7', names, masks)
    assert not (tmp_path / 'run').exists()


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
        leaderboard.write_masks(root, 'bear', '9', ('0', '1', '2'), np.ones((3, 4, 4), bool))
    assert caught.value.errno == errno.ENOSPC and caught.value.filename.endswith('Annotations/bear/9/2.png')
    new = set(everything_under(root)) - set(before)
    assert new == {'Annotations/bear/9', 'Annotations/bear/9/0.png', 'Annotations/bear/9/1.png'}


def test_zip_holds_the_folder_and_is_deterministic(root, tmp_path):
    (root / 'scores.json').write_text('{}')
    (root / 'Annotations/bear/.DS_Store').write_bytes(b'')
    (root / 'Annotations/bear/0/._00000.png').write_bytes(b'')
    assert leaderboard.zip_submission(root, tmp_path / 'a.zip') == len(FILES)
    with zipfile.ZipFile(tmp_path / 'a.zip') as archive:
        assert archive.namelist() == FILES and archive.testzip() is None
        assert all(archive.read(name) == (root / name).read_bytes() for name in FILES)
    for path in root.rglob('*'):
        os.utime(path, (0, 0))
    leaderboard.zip_submission(root, tmp_path / 'b.zip')
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
        leaderboard.zip_submission(root, path)
    assert caught.value.filename == str(path)
    assert everything_under(tmp_path / 'out') == ['a.zip'] and path.read_bytes() == b'earlier'


def test_zip_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match='no mask'):
        leaderboard.zip_submission(tmp_path, tmp_path / 'a.zip')
    assert everything_under(tmp_path) == []


def test_folder_and_zip_read_alike(root, tmp_path):
    leaderboard.zip_submission(root, tmp_path / 'a.zip')
    (root / 'scores.json').write_text('{}')  # Beside Annotations/: no part of the submission.
    (root / 'Annotations/bear/1/00005.png').unlink()
    with (
        leaderboard.open_submission(root) as folder,
        leaderboard.open_submission(tmp_path / 'a.zip') as archive,
    ):
        assert set(archive.files) - set(folder.files) == {'Annotations/bear/1/00005.png'}
        assert set(folder.files) < set(archive.files)
        for name in folder.files:
            assert folder.read(name) == archive.read(name)
        for submission in (folder, archive):
            np.testing.assert_array_equal(
                leaderboard.read_mask(submission, 'cat', '0', '00025'), masks_of('cat', '0')[1]
            )
            with pytest.raises(ValueError, match='Annotations/cat/0/00030.png'):
                leaderboard.read_mask(submission, 'cat', '0', '00030')


def test_open_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such submission'):
        with leaderboard.open_submission(tmp_path / 'none.zip'):
            pass
    (tmp_path / 'text.zip').write_text('not a zip')
    with pytest.raises(ValueError, match='text.zip: neither a folder nor a readable zip'):
        with leaderboard.open_submission(tmp_path / 'text.zip'):
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
    text = leaderboard.format_problems(problems)
    assert 'missing frame: 39,994' in text and '... and 39,991 more' in text and len(text.splitlines()) < 10
    assert leaderboard.format_problems([]) == ''
