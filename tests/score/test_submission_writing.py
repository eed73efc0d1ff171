"""Submissions are written, zipped and read back; nothing half-written stays."""

import errno
import os
import pathlib
import stat
import zipfile

import numpy as np
from PIL import Image
import pytest
from submission_files import EXPECTED, FILES, check, everything_under, masks_of

from sgmg_jax.score import submission


def test_masks_are_written_as_8_bit_pngs(root):
    assert [name for name in everything_under(root) if name.endswith('.png')] == FILES
    assert not list(root.glob('.*'))
    for video, frames, _, expressions in EXPECTED:
        for expression in expressions:
            for frame, mask in zip(frames, masks_of(video, expression)):
                with Image.open(root / submission.mask_path(video, expression, frame)) as image:
                    assert image.mode == 'L' and image.format == 'PNG'
                    np.testing.assert_array_equal(np.asarray(image), np.where(mask, 255, 0))


def test_masks_can_be_written_in_windows(root):
    masks = masks_of('bear', '0')
    for start in (0, 2):
        submission.write_masks(root, 'bear', '8', EXPECTED[0][1][start : start + 2], masks[start : start + 2])
    assert [path.read_bytes() for path in sorted((root / 'Annotations/bear/8').iterdir())] == [
        path.read_bytes() for path in sorted((root / 'Annotations/bear/0').iterdir())
    ]


def test_index_maps_have_the_davis_palette(tmp_path):
    maps = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    submission.write_maps(tmp_path / 'anno_0', 'bear', ('00000', '00001'), maps)
    with Image.open(tmp_path / 'anno_0/bear/00001.png') as image:
        assert image.mode == 'P'
        np.testing.assert_array_equal(np.asarray(image), maps[1])
        # The palette of PASCAL VOC, as listed by its development kit.
        assert image.getpalette()[:27] == [
            0,
            0,
            0,
            128,
            0,
            0,
            0,
            128,
            0,
            128,
            128,
            0,
            0,
            0,
            128,
            128,
            0,
            128,
            0,
            128,
            128,
            128,
            128,
            128,
            64,
            0,
            0,
        ]
        assert image.getpalette()[-3:] == [224, 224, 192]
    with pytest.raises(ValueError, match='maps must be uint8'):
        submission.write_maps(tmp_path, 'bear', ('0',), np.zeros((1, 2, 2), bool))


@pytest.mark.parametrize(
    'names, masks, match',
    [
        (('0', '1'), np.zeros((2, 4, 4), np.uint8), 'uint8'),
        (('0', '1'), np.zeros((3, 4, 4), bool), '3 masks for 2'),
        (('0', '0'), np.zeros((2, 4, 4), bool), '1 of them distinct'),
        (('0', '../1'), np.zeros((2, 4, 4), bool), "must be one name, not a path, is '../1'"),
    ],
)
def test_masks_that_do_not_fit_the_frames_are_refused(tmp_path, names, masks, match):
    with pytest.raises(ValueError, match=match):
        submission.write_masks(tmp_path / 'run', 'bear', '7', names, masks)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    'name', ['', '.', '..', '../x', '/x', 'a/b', 'a\\b', '.x', 'a\n', '\x1b[2J', '\ud800', None, 3]
)
def test_path_traversal_is_refused(tmp_path, name):
    masks, maps = np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), np.uint8)
    for video, expression, frame in ((name, '0', '0'), ('bear', name, '0'), ('bear', '0', name)):
        with pytest.raises(ValueError, match='must .*Rename it'):
            submission.write_masks(tmp_path / 'run', video, expression, [frame], masks)
        if expression != name:
            with pytest.raises(ValueError, match='must .*Rename it'):
                submission.write_maps(tmp_path / 'run', video, [frame], maps)
    assert not (tmp_path / 'run').exists()


def test_file_permissions_follow_the_umask(root):
    before = os.umask(0o022)
    try:
        submission.write_masks(root, 'bear', '9', ('0',), np.ones((1, 4, 4), bool))
        submission.zip_submission(root, root / 'a.zip')
    finally:
        os.umask(before)
    for path in (root / 'Annotations/bear/9/0.png', root / 'a.zip'):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def fill_disk_after(monkeypatch, count):
    """Lets `count` files be written; then the disk is full, with half of a file written."""
    write, left = pathlib.Path.write_bytes, [count]

    def limited(self, data):
        if not left[0]:
            write(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, 'No space left on device')
        left[0] -= 1
        return write(self, data)

    monkeypatch.setattr(pathlib.Path, 'write_bytes', limited)


def test_full_disk_leaves_no_partial_mask(root, monkeypatch):
    before = everything_under(root)
    fill_disk_after(monkeypatch, 2)
    with pytest.raises(OSError, match='No space left') as caught:
        submission.write_masks(root, 'bear', '9', ('0', '1', '2'), np.ones((3, 4, 4), bool))
    assert caught.value.errno == errno.ENOSPC and caught.value.filename.endswith('Annotations/bear/9/2.png')
    new = set(everything_under(root)) - set(before)
    assert new == {'Annotations/bear/9', 'Annotations/bear/9/0.png', 'Annotations/bear/9/1.png'}


def test_zip_is_complete_and_deterministic(root, tmp_path):
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


def test_full_disk_leaves_no_partial_zip(root, tmp_path, monkeypatch):
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


def test_empty_zip_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='no mask'):
        submission.zip_submission(tmp_path, tmp_path / 'a.zip')
    assert everything_under(tmp_path) == []


def test_links_out_of_the_folder_are_not_zipped(root, tmp_path):
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
    (root / 'scores.json').write_text('{}')  # next to Annotations/, so not part of the submission
    (root / 'Annotations/bear/1/00005.png').unlink()
    with submission.open_submission(root) as folder, submission.open_submission(tmp_path / 'a.zip') as archive:
        assert set(archive.files) - set(folder.files) == {'Annotations/bear/1/00005.png'}
        assert set(folder.files) < set(archive.files)
        for name in folder.files:
            assert folder.read(name) == archive.read(name)
        for opened in (folder, archive):
            np.testing.assert_array_equal(submission.read_mask(opened, 'cat', '0', '00025'), masks_of('cat', '0')[1])
            with pytest.raises(ValueError, match='Annotations/cat/0/00030.png'):
                submission.read_mask(opened, 'cat', '0', '00030')


def test_open_submission_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such submission'):
        with submission.open_submission(tmp_path / 'none.zip'):
            pass
    (tmp_path / 'text.zip').write_text('not a zip')
    with pytest.raises(ValueError, match='text.zip: is neither a folder nor a readable zip'):
        with submission.open_submission(tmp_path / 'text.zip'):
            pass
    os.mkfifo(tmp_path / 'pipe.zip')
    with pytest.raises(ValueError, match='pipe.zip: is a pipe'):
        with submission.open_submission(tmp_path / 'pipe.zip'):
            pass


def test_masks_are_thresholded_at_127(tmp_path):
    (tmp_path / 'Annotations/bear/0').mkdir(parents=True)
    grey = np.array([[0, 1, 126, 127, 128, 129, 254, 255]], np.uint8)
    Image.fromarray(grey).save(tmp_path / 'Annotations/bear/0/00000.png')
    with submission.open_submission(tmp_path) as opened:
        for size in (None, (1, 8)):
            mask = submission.read_mask(opened, 'bear', '0', '00000', size)
            assert mask.dtype == bool and mask.tolist() == [[False] * 4 + [True] * 4]
        with pytest.raises(ValueError, match=r'00000.png is \(1, 8\) \(H, W\), but its frame is \(8, 1\)'):
            submission.read_mask(opened, 'bear', '0', '00000', (8, 1))
        Image.fromarray(grey).convert('P').save(tmp_path / 'Annotations/bear/0/00000.png')
        with pytest.raises(ValueError, match='mode P, not L'):
            submission.read_mask(opened, 'bear', '0', '00000')
