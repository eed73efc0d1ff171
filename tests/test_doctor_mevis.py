"""The doctor on copies of MeViS: numbers of both editions, checksums, misplaced and packed parts."""

import hashlib
import shutil
import tarfile

import pytest
import raw_mevis
import raw_tree

from sgmg_jax.doctor import __main__ as doctor
from sgmg_jax.doctor import mevis, places
from sgmg_jax.raw import mevis as raw_reader


@pytest.fixture
def raw(tmp_path):
    return raw_mevis.write(tmp_path / 'raw')


def findings(root):
    (report,) = doctor.diagnose(root)
    assert report.name == 'mevis'
    return [f'{finding.level} {finding.where.removeprefix(f"{root}/")}: {finding.what}' for finding in report.findings]


def set_counts(monkeypatch, edition):
    """The fixture's numbers as those of the first (0) or second edition."""
    counts = {
        split: tuple((len(videos), 4 * len(videos) + (number != edition)) for number in range(2))
        for split, videos in raw_mevis.VIDEOS.items()
    }
    monkeypatch.setattr(mevis, 'COUNTS', counts)


def rename_lists(root):
    for split in raw_mevis.VIDEOS:
        for file in (root / split).glob('meta_expressions*.json'):
            file.rename(root / split / 'meta_expressions.json')


def test_a_whole_copy_of_the_second_edition(raw, monkeypatch):
    set_counts(monkeypatch, 1)
    found = findings(raw)
    assert not [line for line in found if line.startswith(('missing', 'wrong'))]
    assert 'ok train/meta_expressions_v2.json: train: sentences: found 8, known 8' in found
    assert 'ok train/meta_expressions_v2.json: train: videos: found 2, known 2' in found
    assert 'ok train/meta_expressions_v2.json: train: 2 sentences of several objects, 2 without target' in found
    assert 'ok valid_u/meta_expressions_v2.json: valid_u: 4 sentences of several objects, 2 without target' in found
    assert 'ok train/mask_dict.json: has the masks of all 4 objects that sentences refer to, of 4' in found
    assert 'ok valid/JPEGImages: all 2 frames of 1 videos are there' in found
    assert doctor.main([str(raw)]) == 0


def test_the_masks_of_the_first_edition_are_known_by_their_checksum(raw, monkeypatch):
    set_counts(monkeypatch, 0)
    rename_lists(raw)
    different = 'wrong train/mask_dict.json: has another SHA256 ('
    assert any(line.startswith(different) for line in findings(raw))
    sums = {split: hashlib.sha256((raw / split / 'mask_dict.json').read_bytes()).hexdigest() for split in mevis.SHA256}
    monkeypatch.setattr(mevis, 'SHA256', sums)
    found = findings(raw)
    assert not [line for line in found if line.startswith(('missing', 'wrong'))]
    assert 'ok valid_u/mask_dict.json: is the file of the first edition, by its SHA256' in found
    # Of a part of it, or of the second edition, no checksum is known.
    set_counts(monkeypatch, 1)
    monkeypatch.setattr(mevis, 'SHA256', dict.fromkeys(sums, 'x'))
    assert any(line.startswith('note train/mask_dict.json: has another SHA256') for line in findings(raw))


def test_known_numbers():
    for edition, train in enumerate((23_051, 27_502)):
        assert mevis.COUNTS['train'][edition] == (1662, train)
    assert {split: videos for split, ((videos, _), _) in mevis.COUNTS.items()} == places.MEVIS_SPLITS
    assert raw_reader.LISTS == places.MEVIS_LISTS


def test_what_is_missing(raw):
    (raw / 'train' / 'mask_dict.json').unlink()
    shutil.rmtree(raw / 'valid_u' / 'JPEGImages')
    (raw / 'valid' / 'meta_expressions_v2_release.json').unlink()
    found = findings(raw)
    for line in ('train/mask_dict.json', 'valid_u/JPEGImages', 'valid/meta_expressions.json'):
        assert f'missing {line}: is not there' in found


def test_sentences_of_two_editions(raw):
    shutil.copy(raw / 'train' / raw_mevis.EXPRESSIONS, raw / 'train' / 'meta_expressions.json')
    assert (
        'wrong train: has the sentences of several editions, meta_expressions.json and meta_expressions_v2.json'
        in findings(raw)
    )


def test_objects_without_masks(raw):
    raw_tree.edit_json(
        raw / 'valid_u' / raw_mevis.EXPRESSIONS,
        lambda videos: videos['2a1b2c3d4e5f']['expressions']['0'].update(anno_id=[77]),
    )
    assert 'wrong valid_u/mask_dict.json: has no masks of 1 objects that sentences refer to (anno_id 77)' in findings(
        raw
    )


@pytest.mark.parametrize('packed', [False, True])
def test_frames_that_are_missing(raw, packed):
    (raw / 'train' / 'JPEGImages' / '0a1b2c3d4e5f' / '00002.jpg').unlink()
    if packed:
        raw_mevis.pack(raw, 'train')
    place = 'train/JPEGImages.tar: frames that' if packed else 'train/JPEGImages: files that'
    found = findings(raw)
    assert any(line.startswith(f'missing {place} are listed and not there: 1 (0a1b2c3d4e5f/00002') for line in found)


def test_parts_are_recognised_anywhere(raw, monkeypatch):
    set_counts(monkeypatch, 1)
    raw_mevis.pack(raw, 'valid_u')
    (raw / 'elsewhere').mkdir()
    (raw / 'train' / 'JPEGImages').rename(raw / 'elsewhere' / 'frames')
    found = findings(raw)
    wrong = [line for line in found if line.startswith(('missing', 'wrong'))]
    assert wrong == [f'wrong elsewhere/frames: lies in the wrong place; it belongs at {raw / "train" / "JPEGImages"}']
    assert 'ok valid_u/JPEGImages.tar: all 7 frames of 2 videos are there' in found


def test_archives_of_the_whole_are_recognised(raw, tmp_path):
    archive = tmp_path / 'packed' / 'mevis.tar'
    archive.parent.mkdir()
    with tarfile.open(archive, 'w') as file:
        file.add(raw / 'train', 'mevis/train')
    (report, *_) = doctor.diagnose(archive.parent)
    lines = {finding.where: finding.mend for finding in report.findings}
    assert report.name == 'mevis'
    assert lines[str(archive.parent / 'train' / 'mask_dict.json')] == f'tar -xf {archive} -C {archive.parent}'


def test_the_next_command(raw, capsys):
    doctor.main([str(raw)])
    assert f'python -m datasets.build mevis --raw={raw} --out=data/tfds' in capsys.readouterr().out
