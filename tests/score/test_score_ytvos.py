"""Ref-YouTube-VOS: submissions against records in memory, built records and the published ground truth."""

import dataclasses
import json
import zipfile

import numpy as np
from PIL import Image
import pytest
from score_files import SIZE, run, shifted_masks, write_submission

from sgmg_jax import score, synthetic
from sgmg_jax.data import metadata, records
from sgmg_jax.evaluation import scoring
from sgmg_jax.score import __main__ as command
from sgmg_jax.score import submission


def test_summary_equals_means_by_hand(tmp_path, split):
    write_submission(tmp_path, split, shifted_masks)
    summary = score.score_submission('ytvos', tmp_path, split, progress=False)
    assert summary == score.score_submission('ytvos', tmp_path / 'submission.zip', split, progress=False)

    expected = {}
    for record in (split[0], split[2]):
        truth = record.decode_masks()
        for expression in record.video.expressions:
            result = scoring.score_expression(truth, expression.object_id, shifted_masks(record, expression))
            expected[record.video.name, expression.id] = 100 * result['J'].mean(), 100 * result['F'].mean()
    region, boundary = np.mean(list(expected.values()), axis=0)
    assert 0 < region < 100 and 0 < boundary < 100
    assert summary['J'] == pytest.approx(region) and summary['F'] == pytest.approx(boundary)
    assert summary['J&F'] == pytest.approx((region + boundary) / 2)
    assert (summary['expressions'], summary['frames']) == (3, 9)
    assert list(summary['videos']) == ['bear', 'lion']
    assert summary['tags']['motion']['J'] == pytest.approx((expected['bear', '0'][0] + expected['lion', '0'][0]) / 2)
    assert summary['tags']['unseen']['F'] == pytest.approx(expected['lion', '0'][1])


def test_ground_truth_scores_100(tmp_path, split):
    write_submission(
        tmp_path,
        split,
        lambda record, expression: (
            shifted_masks(record, expression) if not record.masks else record.decode_masks() == expression.object_id
        ),
    )
    summary = score.score_submission('ytvos', tmp_path, split, progress=False)
    assert summary['J'] == summary['F'] == summary['J&F'] == summary['J_recall'] == 100


def test_split_without_ground_truth_is_refused(tmp_path, split):
    write_submission(tmp_path, split[1:2], shifted_masks)
    with pytest.raises(ValueError, match='no scored expression'):
        score.score_submission('ytvos', tmp_path, split[1:2], progress=False)


def test_error_names_the_wrong_mask(tmp_path, split):
    write_submission(tmp_path, split, shifted_masks)
    name = 'Annotations/bear/1/00020.png'
    Image.new('L', (7, 5)).save(tmp_path / name)
    with pytest.raises(ValueError, match=f'{name} is .5, 7.'):
        score.score_submission('ytvos', tmp_path, split, progress=False)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=name):
        score.score_submission('ytvos', tmp_path, split, progress=False)


def test_command_writes_the_scores(tmp_path, split, records_opened, capsys):
    write_submission(tmp_path, split, shifted_masks)
    out = tmp_path / 'new/scores.json'
    assert run('ytvos', 'x', tmp_path / 'submission.zip', out) == 0
    printed = capsys.readouterr().out
    assert 'complete and well-formed, 3 videos, 11 masks' in printed and 'unseen' in printed
    assert json.loads(out.read_text()) == score.score_submission('ytvos', tmp_path, split, progress=False)
    assert [path.name for path in out.parent.iterdir()] == ['scores.json']


def test_check_only_writes_no_scores(tmp_path, split, records_opened, capsys):
    write_submission(tmp_path, split, shifted_masks)
    out = tmp_path / 'scores.json'
    assert run('ytvos', 'x', tmp_path, out, '--check-only') == 0
    assert 'well-formed' in capsys.readouterr().out and not out.exists()


def test_incomplete_submission_exits_with_1(tmp_path, split, records_opened, capsys):
    write_submission(tmp_path, split, shifted_masks)
    (tmp_path / 'Annotations/hidden/0/00020.png').unlink()  # no ground truth, but the server requires it
    out = tmp_path / 'scores.json'
    assert run('ytvos', 'x', tmp_path, out) == 1
    printed = capsys.readouterr().out
    assert 'missing frame: 1' in printed and 'Annotations/hidden/0/00020.png' in printed and 'to fix' in printed
    assert not out.exists()


def test_missing_submission_exits_with_2(tmp_path, records_opened, capsys):
    assert run('ytvos', 'x', tmp_path / 'none.zip', tmp_path / 'scores.json') == 2
    assert 'none.zip: no such submission' in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        command.main(['ytvos', '--help'])
    assert caught.value.code == 0 and 'Annotations/<video>/' in capsys.readouterr().out


def test_missing_records_exit_with_2(tmp_path, capsys):
    assert run('ytvos', tmp_path / 'none', tmp_path, tmp_path / 'scores.json') == 2
    assert 'none: no such folder' in capsys.readouterr().err


def test_object_id_above_254_is_refused(tmp_path, split):
    video = split[0].video
    wrong = dataclasses.replace(video, expressions=(metadata.Expression('0', 'a', 300, ()),))
    split = [dataclasses.replace(split[0], video=wrong)]
    write_submission(tmp_path, split, lambda record, expression: np.zeros((4, *SIZE), bool))
    with pytest.raises(ValueError, match='video bear, expression 0: object_id 300'):
        score.score_submission('ytvos', tmp_path, split, progress=False)


def test_built_records(tmp_path, capsys):
    build = pytest.importorskip('datasets.build')
    synthetic.write_dataset(tmp_path / 'raw', num_train=1, num_valid=2, seed=3, num_frames=5, size=(64, 64))
    directory = build.build('ref_youtube_vos', tmp_path / 'raw', tmp_path / 'records')
    split = records.open_records(directory, 'valid')
    for index in range(len(split)):
        record = split[index]
        truth = record.decode_masks()
        for position, expression in enumerate(record.video.expressions):
            masks = truth == expression.object_id
            submission.write_masks(
                tmp_path / 'run',
                record.video.name,
                expression.id,
                record.video.frame_names,
                masks if position else ~masks,
            )
    submission.zip_submission(tmp_path / 'run', tmp_path / 'submission.zip')
    out = tmp_path / 'scores.json'
    arguments = ['ytvos', directory, tmp_path / 'submission.zip', out]
    assert run(*arguments) == 0
    summary = json.loads(out.read_text())
    # Each process opens the records itself.
    assert run(*arguments, processes=2) == 0 and json.loads(out.read_text()) == summary
    total = sum(len(video.expressions) for video in split.videos)
    assert summary['expressions'] == total > len(split)
    # The prediction for the first expression of each video is the background; the others are perfect.
    assert summary['J'] == pytest.approx(100 * (total - len(split)) / total)
    assert set(summary['tags']) == {tag for video in split.videos for e in video.expressions for tag in e.tags}

    with zipfile.ZipFile(tmp_path / 'submission.zip', 'a') as archive:
        archive.writestr('__MACOSX/x', b'')
    assert run(*arguments) == 1
    assert 'junk: 1' in capsys.readouterr().out
