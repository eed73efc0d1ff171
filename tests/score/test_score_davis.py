"""Ref-DAVIS17: index maps of one annotator or four against a copy of DAVIS-2017 and against records."""

import json
import os
import shutil
import zipfile

import numpy as np
from PIL import Image
import pytest
from score_files import add_junk_files, run, write_index_maps, zip_folder

from sgmg_jax import score
from sgmg_jax.evaluation import davis, scoring
from sgmg_jax.score import common


def swap_objects(masks):
    """Swaps the ids of objects 1 and 2, and shifts everything."""
    return np.roll(np.array([0, 2, 1], np.uint8)[masks % scoring.VOID], 1, axis=1)


@pytest.mark.parametrize('task', davis.TASKS)
def test_scores_per_task_and_annotator(tmp_path, sequences, task, capsys):
    pred, out = tmp_path / 'DVS_Annotations', tmp_path / 'scores.json'
    for annotator in range(4):
        write_index_maps(
            pred / f'anno_{annotator}',
            {name: swap_objects(masks) if annotator % 2 else masks % scoring.VOID for name, masks in sequences.items()},
        )
    option = f'--task={task}'
    assert run('davis', tmp_path, pred, out, option) == 0
    printed = capsys.readouterr().out
    assert 'average' in printed and f'ground truth: {tmp_path}/DAVIS/Annotations_unsupervised/480p' in printed
    summary = json.loads(out.read_text())
    for annotator, of_annotator in summary['annotators'].items():
        expected = davis.summarise(
            {
                'x': {
                    name: davis.score_sequence(
                        masks,
                        [
                            (swap_objects(masks) if annotator in ('anno_1', 'anno_3') else masks % scoring.VOID)[
                                davis.scored_frames(len(masks), task)
                            ]
                        ],
                        task,
                    )[0]
                    for name, masks in sequences.items()
                }
            }
        )
        assert of_annotator == expected['annotators']['x']
    assert summary['annotators']['anno_0']['J&F'] == 100 and summary['objects'] == 4
    assert summary['J&F'] == pytest.approx((100 + summary['annotators']['anno_1']['J&F']) / 2)
    assert (summary['J'] > 60) == (task == 'unsupervised')
    for source, processes in ((zip_folder(pred), 1), (pred, 2)):
        assert run('davis', tmp_path / 'DAVIS', source, out, option, processes=processes) == 0
        assert json.loads(out.read_text()) == summary
    # A single annotator.
    assert run('davis', tmp_path, pred / 'anno_1', out, option) == 0
    assert json.loads(out.read_text())['annotators'] == {'results': summary['annotators']['anno_1']}


def test_semi_supervised_does_not_need_the_first_frame(tmp_path, sequences):
    write_index_maps(tmp_path / 'pred', {name: masks % scoring.VOID for name, masks in sequences.items()})
    (tmp_path / 'pred/bear/00000.png').unlink()
    out = tmp_path / 'scores.json'
    assert run('davis', tmp_path, tmp_path / 'pred', out, '--task=semi-supervised') == 0
    assert run('davis', tmp_path, tmp_path / 'pred', out) == 1


def test_incomplete_ground_truth_is_refused(tmp_path, sequences, capsys):
    write_index_maps(tmp_path / 'pred', {name: masks % scoring.VOID for name, masks in sequences.items()})
    bear = tmp_path / 'DAVIS/Annotations_unsupervised/480p/bear'
    (bear / '00003.png').unlink()
    assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json') == 1
    text = capsys.readouterr().out
    assert 'frame without ground truth: 1' in text and 'bear/00003.png' in text
    (bear / '00001.png').unlink()
    assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json') == 2
    assert f'{bear / "00001.png"}: is missing' in capsys.readouterr().err


def test_records_as_ground_truth(tmp_path, split, records_opened):
    pred, out = tmp_path / 'pred', tmp_path / 'scores.json'
    del split[1]
    write_index_maps(pred, {record.video.name: record.decode_masks() % scoring.VOID for record in split})
    for record in split:
        for old, new in zip(sorted((pred / record.video.name).iterdir()), record.video.frame_names):
            old.rename(old.with_name(f'new{new}.png'))
        for file in (pred / record.video.name).iterdir():
            file.rename(file.with_name(file.name.removeprefix('new')))
    assert run('davis', 'x', pred, out) == 0
    assert json.loads(out.read_text())['J'] == 100
    assert score.score_submission('davis', pred, split, progress=False) == json.loads(out.read_text())


def test_every_problem_is_listed(tmp_path, sequences, capsys):
    good, out = {name: masks % scoring.VOID for name, masks in sequences.items()}, tmp_path / 'scores.json'
    pred = tmp_path / 'pred'

    def printed(option='--task=unsupervised', processes=1):
        assert run('davis', tmp_path, pred, out, option, processes=processes) == 1
        assert not out.exists()
        text = capsys.readouterr().out
        assert 'to fix' in text and 'not scored' in text
        return text

    write_index_maps(pred, {'bear': good['bear']})
    (pred / 'bear/00002.png').unlink()
    text = printed()
    assert 'missing sequence: 1' in text and 'lion' in text and 'bear/00002.png' in text
    write_index_maps(pred, good)
    Image.new('L', (7, 5)).save(pred / 'bear/00000.png')
    Image.new('RGB', (42, 30)).save(pred / 'bear/00001.png')
    (pred / 'lion/00001.png').write_bytes(b'\x89PNG')
    Image.new('L', (42, 30), 255).save(pred / 'lion/00002.png')
    for processes in (1, 2):
        text = printed(processes=processes)
        for kind in ('wrong size', 'wrong mode', 'unreadable PNG', 'too many objects'):
            assert f'{kind}: 1' in text
        assert 'H x W is 5 x 7, that of its frames 30 x 42' in text and 'object id 255, must be at most 20' in text
    write_index_maps(pred, good)
    Image.new('L', (42, 30), 3).save(pred / 'lion/00001.png')
    assert 'object id 3, must be at most 2' in printed('--task=semi-supervised')
    assert run('davis', tmp_path, pred, out, '--check-only') == 0 and not out.exists()
    (pred / 'bear').rename(tmp_path / 'old')
    (pred / 'lion').rename(tmp_path / 'pred/anno_2')
    assert 'no folder with' in printed()
    assert run('davis', tmp_path / 'pred', pred, out) == 2
    assert 'no index PNGs' in capsys.readouterr().err


def test_junk_files_are_ignored(tmp_path, sequences, capsys):
    pred, out = tmp_path / 'pred', tmp_path / 'scores.json'
    for annotator in range(4):
        write_index_maps(pred / f'anno_{annotator}', {name: masks % scoring.VOID for name, masks in sequences.items()})
    add_junk_files(pred)
    add_junk_files(tmp_path / 'DAVIS/Annotations_unsupervised')
    (tmp_path / 'DAVIS/Annotations_unsupervised/480p/bear/empty').mkdir()
    lists = tmp_path / 'DAVIS/ImageSets/2017/val.txt'
    for text in (b'\xef\xbb\xbfbear\r\nlion\r\n', 'bear\n\n lion '.encode('utf-16'), b'bear\rlion', None):
        if text is None:
            lists.unlink()  # now every folder is a sequence
            (tmp_path / 'DAVIS/Annotations_unsupervised/480p/no frames').mkdir()
        else:
            lists.write_bytes(text)
        assert run('davis', tmp_path, pred, out) == 0
        summary = json.loads(out.read_text())
        assert summary['J&F'] == 100 and summary['objects'] == 4
        assert set(summary['annotators']['anno_3']['videos']) == {'bear', 'lion'}
    assert run('davis', tmp_path, zip_folder(pred), out) == 0
    # One level deeper.
    (tmp_path / 'deep').mkdir()
    (tmp_path / 'DAVIS').rename(tmp_path / 'deep' / 'copy')
    assert run('davis', tmp_path / 'deep', pred, out) == 0 and json.loads(out.read_text()) == summary
    shutil.copytree(tmp_path / 'deep' / 'copy', tmp_path / 'deep' / 'other')
    assert run('davis', tmp_path / 'deep', pred, out) == 2
    assert 'several copies of the data set, in copy, other' in capsys.readouterr().err


@pytest.mark.parametrize(
    'text, message',
    [
        ('bear\n../../etc\n', None),
        ('..\n', None),
        ('bear\n.\n', None),
        ('bear\\x\n', None),
        ('\x1b[2J\n', None),
        ('/JPEGImages/../00000.jpg\n', None),
        ('/x\n', None),
        ('', 'lists no sequence'),
        ('\n \n', 'lists no sequence'),
        ('bear\nwolf\n', 'of 1 sequences .* such as wolf'),
    ],
)
def test_malformed_sequence_lists_are_refused(tmp_path, sequences, capsys, text, message):
    write_index_maps(tmp_path / 'pred', {name: masks % scoring.VOID for name, masks in sequences.items()})
    (tmp_path / 'DAVIS/ImageSets/2017/val.txt').write_text(text)
    assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json') == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1 and '\x1b' not in error
    assert (message or 'val.txt: the name of a sequence must').split(' .* ')[0] in error


def davis_error(tmp_path, capsys, option='--task=unsupervised', processes=1):
    assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json', option, processes=processes) == 2
    _, error = capsys.readouterr().err.split('error: ')  # after the progress
    return error


def test_malformed_ground_truth_is_refused(tmp_path, sequences, capsys, monkeypatch):
    good = {name: masks % scoring.VOID for name, masks in sequences.items()}
    write_index_maps(tmp_path / 'pred', good)
    bear = tmp_path / 'DAVIS/Annotations_unsupervised/480p/bear'
    first, last = bear / '00000.png', bear / '00003.png'
    original = first.read_bytes()

    def with_first(image, **options):
        image.save(first, 'PNG', **options)
        return davis_error(tmp_path, capsys)

    for value in (0, scoring.VOID):  # No object, or a binary mask.
        assert 'sequence bear of the ground truth: the highest object id in its first frame, 00000, is 0' in with_first(
            Image.new('L', (42, 30), value)
        )
    for value, right in ((20, True), (21, False), (254, False)):
        Image.new('L', (42, 30), value).save(first)
        if right:
            assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json') == 0
        else:
            assert f'is {value}; it must be 1 to 20' in davis_error(tmp_path, capsys, processes=2)
            assert f'is {value}; it must be' in davis_error(tmp_path, capsys, '--task=semi-supervised')
    assert f'{first}: cannot be read (mode 1' in with_first(Image.new('1', (42, 30), 1))
    assert f'{first}: cannot be read (mode RGB' in with_first(Image.new('RGB', (42, 30)))
    assert 'but 00000.png in the same folder is (8000, 9000)' not in with_first(
        Image.new('L', (9000, 8000))
    )  # too large to be read
    assert f'{bear / "00001.png"}: is (30, 42) (H, W), but 00000.png in the same folder is (31, 42)' in with_first(
        Image.new('L', (42, 31), 1)
    )
    first.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 42 30\n')
    assert f'{first}: cannot be read (is not PNG' in davis_error(tmp_path, capsys)
    first.unlink()
    os.mkfifo(first)
    assert f'{first}: cannot be read' in davis_error(tmp_path, capsys)
    first.unlink()
    assert f'{first}: is missing' in davis_error(tmp_path, capsys)
    first.write_bytes(original)
    monkeypatch.setattr(common, 'MOST_PIXELS', 4 * 42 * 30)
    assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json') == 0
    monkeypatch.setattr(common, 'MOST_PIXELS', 4 * 42 * 30 - 1)
    assert f'{bear}: 4 masks of 42x30 pixels; must be at most 5,039' in davis_error(tmp_path, capsys)
    last.unlink()
    monkeypatch.undo()
    for file in (tmp_path / 'pred' / 'bear').glob('0000[123].png'):
        file.unlink()
    for frame in (1, 2):
        (bear / f'{frame:05d}.png').unlink()
    assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json') == 0  # A single frame.
    assert 'sequence bear of the ground truth: has 1 frames' in davis_error(tmp_path, capsys, '--task=semi-supervised')


def test_hostile_predictions_are_refused(tmp_path, sequences, capsys):
    good = {name: masks % scoring.VOID for name, masks in sequences.items()}
    pred, out = tmp_path / 'pred', 'scores.json'
    write_index_maps(pred, good)
    frames = [pred / f'bear/0000{number}.png' for number in range(4)]
    secret = tmp_path / 'secret.png'
    frames[0].rename(secret)
    frames[0].symlink_to(secret)
    frames[1].unlink()
    os.mkfifo(frames[1])
    frames[2].write_bytes(b'%!PS')
    Image.new('L', (5000, 6000)).save(frames[3])
    assert run('davis', tmp_path, pred, tmp_path / out) == 1
    text = capsys.readouterr().out
    assert 'unreadable PNG: 3' in text and 'outside of' in text and 'is a pipe' in text and 'wrong size: 1' in text
    shutil.rmtree(pred)
    write_index_maps(pred, good)
    with zipfile.ZipFile(zip_folder(pred), 'a') as archive:
        with pytest.warns(UserWarning, match='Duplicate name'):
            archive.writestr('pred/bear/00001.png', frames[0].read_bytes())
    assert run('davis', tmp_path, tmp_path / 'pred.zip', tmp_path / out) == 1
    assert 'file twice in the zip: 1' in capsys.readouterr().out
    (pred / 'lion').rename(tmp_path / 'lion')
    (pred / 'lion').symlink_to(tmp_path / 'lion')
    assert run('davis', tmp_path, pred, tmp_path / out) == 2
    assert 'lion: is a link to another folder' in capsys.readouterr().err
