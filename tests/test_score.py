"""The scorer, on records made in memory and, at the end, on records that the builder wrote."""

import io
import json
import zipfile

import numpy as np
from PIL import Image
import pytest

from sgmg_jax import score
from sgmg_jax.data import records, synthetic
from sgmg_jax.evaluation import scoring
from sgmg_jax.inference import leaderboard

SIZE = (36, 50)


def png(mask):
    data = io.BytesIO()
    Image.fromarray(mask).save(data, 'PNG')
    return data.getvalue()


def make_record(name, frames, expressions, hidden=False):
    """A record of random boxes: objects 1 and 2, and some void."""
    rng = np.random.default_rng(len(name) + frames)
    masks = np.zeros((frames, *SIZE), np.uint8)
    for mask in masks:
        for value in (1, 2, scoring.VOID):
            y, x = rng.integers(0, 24), rng.integers(0, 34)
            mask[y : y + 12, x : x + 16] = value
    video = records.Video(
        name,
        tuple(f'{5 * number:05}' for number in range(3, 3 + frames)),
        *SIZE,
        tuple(expressions),
        not hidden,
    )
    return records.Record(video, (), () if hidden else tuple(map(png, masks)))


@pytest.fixture
def split():
    expression = records.Expression
    return [
        make_record('bear', 4, [expression('0', 'a', 1, ('motion',)), expression('1', 'b', 2, ())]),
        make_record('hidden', 2, [expression('0', 'c', -1, ())], hidden=True),
        make_record('lion', 1, [expression('0', 'd', 2, ('motion', 'unseen'))]),
    ]


def write(root, split, masks_of):
    for record in split:
        for expression in record.video.expressions:
            leaderboard.write_expression(
                root, record.video.name, expression.id, record.video.frame_names, masks_of(record, expression)
            )
    leaderboard.zip_submission(root, root / 'submission.zip')


def shifted(record, expression):
    if not record.masks:
        return np.zeros((len(record.video.frame_names), *SIZE), bool)
    return np.roll(record.decode_masks() == expression.object_id, 3, axis=2)


def test_scores_by_hand(tmp_path, split):
    write(tmp_path, split, shifted)
    summary = score.score_submission(tmp_path, split, progress=False)
    assert summary == score.score_submission(tmp_path / 'submission.zip', split, progress=False)

    expected = {}
    for record in (split[0], split[2]):
        truth = record.decode_masks()
        for expression in record.video.expressions:
            result = scoring.score_expression(truth, expression.object_id, shifted(record, expression))
            expected[record.video.name, expression.id] = 100 * result['J'].mean(), 100 * result['F'].mean()
    region, boundary = np.mean(list(expected.values()), axis=0)
    assert 0 < region < 100 and 0 < boundary < 100
    assert summary['J'] == pytest.approx(region) and summary['F'] == pytest.approx(boundary)
    assert summary['J&F'] == pytest.approx((region + boundary) / 2)
    assert (summary['expressions'], summary['frames']) == (3, 9)
    assert list(summary['videos']) == ['bear', 'lion']
    assert summary['tags']['motion']['J'] == pytest.approx(
        (expected['bear', '0'][0] + expected['lion', '0'][0]) / 2
    )
    assert summary['tags']['unseen']['F'] == pytest.approx(expected['lion', '0'][1])


def test_truth_scores_100(tmp_path, split):
    write(
        tmp_path,
        split,
        lambda record, expression: (
            shifted(record, expression) if not record.masks else record.decode_masks() == expression.object_id
        ),
    )
    summary = score.score_submission(tmp_path, split, progress=False)
    assert summary['J'] == summary['F'] == summary['J&F'] == summary['J_recall'] == 100


def test_no_ground_truth(tmp_path, split):
    write(tmp_path, split[1:2], shifted)
    with pytest.raises(ValueError, match='no scored expression'):
        score.score_submission(tmp_path, split[1:2], progress=False)


def test_unscorable_submission_names_the_file(tmp_path, split):
    write(tmp_path, split, shifted)
    name = 'Annotations/bear/1/00020.png'
    Image.new('L', (7, 5)).save(tmp_path / name)
    with pytest.raises(ValueError, match=f'{name} is .5, 7.'):
        score.score_submission(tmp_path, split, progress=False)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=name):
        score.score_submission(tmp_path, split, progress=False)


@pytest.fixture
def opened(monkeypatch, split):
    """The command reads `split` as if it were built records."""

    class Split(list):
        videos = tuple(record.video for record in split)

    monkeypatch.setattr(records, 'open_records', lambda directory, name: Split(split))


def test_command_scores(tmp_path, split, opened, capsys):
    write(tmp_path, split, shifted)
    out = tmp_path / 'new/scores.json'
    assert score.main([str(tmp_path / 'submission.zip'), '--records=x', f'--out={out}']) == 0
    printed = capsys.readouterr().out
    assert 'complete and well-formed, 3 videos, 11 masks' in printed and 'unseen' in printed
    assert json.loads(out.read_text()) == score.score_submission(tmp_path, split, progress=False)
    assert [path.name for path in out.parent.iterdir()] == ['scores.json']


def test_command_checks_only(tmp_path, split, opened, capsys):
    write(tmp_path, split, shifted)
    out = tmp_path / 'scores.json'
    assert score.main([str(tmp_path), '--records=x', f'--out={out}', '--check-only']) == 0
    assert 'well-formed' in capsys.readouterr().out and not out.exists()


def test_command_refuses_a_wrong_submission(tmp_path, split, opened, capsys):
    write(tmp_path, split, shifted)
    (tmp_path / 'Annotations/hidden/0/00020.png').unlink()  # No ground truth, but the server wants it.
    out = tmp_path / 'scores.json'
    assert score.main([str(tmp_path), '--records=x', f'--out={out}']) == 1
    printed = capsys.readouterr().out
    assert (
        'missing frame: 1' in printed and 'Annotations/hidden/0/00020.png' in printed and 'to mend' in printed
    )
    assert not out.exists()


def test_command_refuses_wrong_arguments(tmp_path, opened, capsys):
    assert score.main([str(tmp_path / 'none.zip'), '--records=x']) == 2
    assert 'none.zip: there is no such submission' in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        score.main(['--help'])
    assert caught.value.code == 0 and 'Annotations/<video>/' in capsys.readouterr().out


def test_missing_records(tmp_path, capsys):
    assert score.main([str(tmp_path), f'--records={tmp_path / "none"}']) == 2
    assert 'none: no such folder' in capsys.readouterr().err


def test_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match='[Nn]a[Nn]|JSON compliant'):
        score.write_scores(tmp_path / 'scores.json', {'J': float('nan')})
    assert list(tmp_path.iterdir()) == []


def test_end_to_end_on_built_records(tmp_path, capsys):
    build = pytest.importorskip('datasets.build')
    synthetic.write_dataset(tmp_path / 'raw', num_train=1, num_valid=2, seed=3, num_frames=5, size=(64, 64))
    directory = build.build('ref_youtube_vos', tmp_path / 'raw', tmp_path / 'records')
    split = records.open_records(directory, 'valid')
    for index in range(len(split)):
        record = split[index]
        truth = record.decode_masks()
        for position, expression in enumerate(record.video.expressions):
            masks = truth == expression.object_id
            leaderboard.write_expression(
                tmp_path / 'run',
                record.video.name,
                expression.id,
                record.video.frame_names,
                masks if position else ~masks,
            )
    leaderboard.zip_submission(tmp_path / 'run', tmp_path / 'submission.zip')
    out = tmp_path / 'scores.json'
    arguments = [str(tmp_path / 'submission.zip'), f'--records={directory}', f'--out={out}']
    assert score.main(arguments) == 0
    summary = json.loads(out.read_text())
    total = sum(len(video.expressions) for video in split.videos)
    assert summary['expressions'] == total > len(split)
    # The first expression of each video is answered with the background, the others perfectly.
    assert summary['J'] == pytest.approx(100 * (total - len(split)) / total)
    assert set(summary['tags']) == {
        tag for video in split.videos for e in video.expressions for tag in e.tags
    }

    with zipfile.ZipFile(tmp_path / 'submission.zip', 'a') as archive:
        archive.writestr('__MACOSX/x', b'')
    assert score.main(arguments) == 1
    assert 'junk: 1' in capsys.readouterr().out
