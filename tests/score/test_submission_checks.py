"""The check of a submission finds every fault, in a folder and in a zip."""

import errno
import os
import shutil

import numpy as np
from PIL import Image
import pytest
from submission_files import EXPECTED, FILES, check, only, zip_of

from sgmg_jax.score import common, submission


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
        'H x W is 16 x 9, that of its frames 9 x 16',
    ),
    ('wrong mode', lambda root: save(root, np.zeros((9, 16, 3), np.uint8)), 1, 'mode RGB'),
    ('wrong mode', lambda root: save(root, np.zeros((9, 16), np.uint8), 'P'), 1, 'mode P'),
    ('wrong mode', lambda root: save(root, np.zeros((9, 16), bool)), 1, 'mode 1'),
    ('wrong mode', lambda root: save(root, np.zeros((9, 16), np.uint16)), 1, 'mode I;16'),
    ('values other than 0 and 255', lambda root: save(root, np.eye(9, 16, dtype=np.uint8)), 1, '1 others, from 1 on'),
    ('unreadable PNG', truncate, 1, 'Annotations/cat/0/00020.png'),
    ('unreadable PNG', lambda root: (root / 'Annotations/cat/0/00020.png').write_bytes(b''), 1, 'cat/0/00020.png'),
    (
        'unreadable PNG',
        lambda root: Image.new('L', (16, 9)).save(root / 'Annotations/cat/0/00020.png', 'JPEG'),
        1,
        'cat/0/00020.png',
    ),
    ("operating system's junk", lambda root: (root / 'Annotations/cat/.DS_Store').write_bytes(b''), 1, '.DS_Store'),
]


@pytest.mark.parametrize('kind, fault, count, example', FAULTS)
@pytest.mark.parametrize('zipped', [False, True], ids=['folder', 'zip'])
def test_each_problem_is_found(root, tmp_path, kind, fault, count, example, zipped):
    assert check(root) == []
    fault(root)
    path = root
    if zipped:
        path = shutil.make_archive(tmp_path / 'made', 'zip', root, 'Annotations')
    problem = only(check(path))
    assert problem.kind == kind and problem.count == count and problem.fix
    assert example in problem.examples[0]


def test_junk_files_are_reported(root):
    for name in ('.DS_Store', 'Thumbs.db', 'desktop.ini', '0/._00020.png', '0/__MACOSX'):
        (root / 'Annotations/cat' / name).write_bytes(b'')
    problem = only(check(root))
    assert problem.kind == "operating system's junk" and problem.count == 5


def test_pipes_and_links_are_not_read(root):
    """The check neither waits for a pipe nor follows a link out of the submission."""
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


def test_unreadable_folder_raises(root, monkeypatch):
    scandir = os.scandir

    def fail(path):
        if os.fspath(path).endswith('bear/1'):
            raise PermissionError(errno.EACCES, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', fail)
    with pytest.raises(PermissionError, match='bear/1'):
        check(root)


def test_submission_may_be_a_symlink(root):
    (root.parent / 'link').symlink_to(root)
    assert check(root.parent / 'link') == []


def test_wrong_sizes_are_not_decoded(root, monkeypatch):
    for frame, mode in (('00000', 'L'), ('00005', 'RGB')):
        Image.new(mode, (3000, 2000)).save(root / f'Annotations/bear/0/{frame}.png')
    Image.new('RGB', (37, 24)).save(root / 'Annotations/bear/0/00015.png')
    expected = [EXPECTED[0]._replace(expression_ids=('0',))]
    shutil.rmtree(root / 'Annotations/cat')
    shutil.rmtree(root / 'Annotations/bear/1')
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', lambda self: pytest.fail('pixels were decoded'))
    assert {problem.kind: problem.count for problem in check(root, expected)} == {'wrong size': 2, 'wrong mode': 2}


def test_wrong_top_folder_of_a_zip(root, tmp_path):
    files = [(name, (root / name).read_bytes()) for name in FILES]
    assert check(zip_of(tmp_path / 'right.zip', files)) == []

    problem = only(check(zip_of(tmp_path / 'wrapped.zip', [(f'run/out/{name}', data) for name, data in files])))
    assert problem.kind == 'wrong top folder' and 'run/out/' in problem.fix
    for prefix in ('', 'valid/'):
        moved = [(prefix + name.removeprefix('Annotations/'), data) for name, data in files]
        problem = only(check(zip_of(tmp_path / 'moved.zip', moved)))
        assert problem.kind == 'wrong top folder' and 'Annotations/' in problem.fix

    problem = only(check(zip_of(tmp_path / 'mac.zip', [*files, ('__MACOSX/Annotations/bear/._0', b'')])))
    assert problem.kind == "operating system's junk" and problem.examples == ('__MACOSX/Annotations/bear/._0',)
    problem = only(check(zip_of(tmp_path / 'more.zip', [*files, ('scores.json', b'{}')])))
    assert problem.kind == 'file outside Annotations/' and problem.examples == ('scores.json',)
    for others in ([], [('a.txt', b'')]):
        problem = only(check(zip_of(tmp_path / 'other.zip', others)))
        assert problem.kind == 'wrong top folder' and 'right folder or zip' in problem.fix


def test_problems_below_a_wrong_top_folder_are_found(root, tmp_path):
    (root / 'Annotations/bear/0/00005.png').unlink()
    save(root, np.zeros((16, 9), np.uint8))
    path = shutil.make_archive(tmp_path / 'made', 'zip', root.parent, root.name)
    assert [problem.kind for problem in check(path)] == ['wrong top folder', 'missing frame', 'wrong size']
    # Given the folder Annotations itself instead of its parent.
    assert [problem.kind for problem in check(root / 'Annotations')] == [
        'wrong top folder',
        'missing frame',
        'wrong size',
    ]


def test_many_problems_print_few_lines(root):
    frames = tuple(f'{number:05}' for number in range(20_000))
    problems = check(root, [EXPECTED[0]._replace(frame_names=frames), EXPECTED[1]])
    counts = {problem.kind: problem.count for problem in problems}
    assert counts == {'missing frame': 2 * (20_000 - 3)}
    text = common.format_problems(problems)
    assert 'missing frame: 39,994' in text and '... and 39,991 more' in text and len(text.splitlines()) < 10
    assert common.format_problems([]) == ''


def test_control_characters_are_escaped():
    problem = common.Problem('unexpected file', 4, ('a\x1b[2Jb', 'c\nd\te', '\ud800' + 'x' * 1000), '\x1b]0;')
    text = common.format_problems([problem])
    assert text.splitlines() == [
        'unexpected file: 4',
        r'    a\x1b[2Jb',
        r'    c\nd\te',
        rf'    \ud800{"x" * 292}..',
        '    ... and 1 more',
        r'    to fix: \x1b]0;',
    ]
    text.encode()
