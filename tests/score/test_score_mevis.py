"""MeViS: submissions without a top folder, N-acc and T-acc, sentences of several objects and of none."""

import json
import shutil
import zipfile

import numpy as np
from PIL import Image
import pytest
import raw_mevis
from score_files import run

from datasets import build
from sgmg_jax import score
from sgmg_jax.data import records
from sgmg_jax.evaluation import mevis, region_boundary, scoring
from sgmg_jax.inference import protocols
from sgmg_jax.score import submission

VIDEOS = raw_mevis.VIDEOS['valid_u']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('mevis')
    return build.build('mevis', raw_mevis.write(root / 'raw'), root / 'tfds')


def predicted(video, key):
    """bool [T H W]: the truth moved; of each second video also something for the sentence without target."""
    group = raw_mevis.groups(video)[int(key)]
    masks = np.roll(raw_mevis.union(video, group), 4, axis=2)
    if not group and video[0] == '3':
        masks[1, 5:20, 7:30] = True
    if key == '1':
        masks[:] = False
    return masks


def write(root, masks_of=predicted, videos=VIDEOS):
    """Writes the files of a submission, without this package."""
    for video, frames in videos.items():
        for key in map(str, range(len(raw_mevis.TEXTS))):
            (root / video / key).mkdir(parents=True)
            for name, mask in zip(frames, masks_of(video, key)):
                Image.fromarray(mask.astype(np.uint8) * 255).save(root / video / key / f'{name}.png')
    return root


def zipped(root, path, prefix=''):
    with zipfile.ZipFile(path, 'w') as archive:
        for file in sorted(root.rglob('*.png')):
            archive.write(file, prefix + file.relative_to(root).as_posix())
    return path


def test_scores_by_definition(tmp_path, folder, capsys):
    write(tmp_path / 'run')
    pred = zipped(tmp_path / 'run', tmp_path / 'submission.zip')
    assert run('mevis', folder, pred, tmp_path / 'scores.json', processes=2) == 0
    printed = capsys.readouterr().out
    assert 'complete and well-formed, 2 videos, 28 masks' in printed
    for word in ('N-acc', 'T-acc', 'Final', 'J&F_with_target', 'several_objects', 'no_target'):
        assert word in printed
    found = json.loads((tmp_path / 'scores.json').read_text())
    split = records.open_records(folder, 'valid_u')
    assert found == score.score_submission('mevis', tmp_path / 'run', split, progress=False)

    rows = []
    for video in VIDEOS:
        for key in map(str, range(4)):
            group, prediction = raw_mevis.groups(video)[int(key)], predicted(video, key)
            truth = raw_mevis.union(video, group)
            pairs = list(zip(truth, prediction))
            union = [(g | p).sum() for g, p in pairs]
            region = np.mean([(g & p).sum() / u if u else 1.0 for (g, p), u in zip(pairs, union)])
            boundary = np.mean([region_boundary.boundary_accuracy(g, p) for g, p in pairs])
            rows.append((region, boundary, bool(group), bool(prediction.any()), len(group)))
    region, boundary, target, seen, count = map(np.array, zip(*rows))
    near = dict(rel=0, abs=1e-9)
    assert found['J'] == pytest.approx(100 * region.mean(), **near)
    assert found['F'] == pytest.approx(100 * boundary.mean(), **near)
    assert found['J&F'] == pytest.approx(50 * (region.mean() + boundary.mean()), **near)
    with_target = 50 * (region[target].mean() + boundary[target].mean())
    assert found['J&F_with_target'] == pytest.approx(with_target, **near) and with_target < found['J&F']
    assert found['N-acc'] == 50 and found['T-acc'] == pytest.approx(100 * seen[target].mean(), **near)
    assert 0 < found['T-acc'] < 100
    assert found['Final'] == pytest.approx((found['J&F'] + found['N-acc'] + found['T-acc']) / 3, **near)
    assert found['Final_with_target'] == pytest.approx((with_target + found['N-acc'] + found['T-acc']) / 3, **near)
    assert (found['expressions'], found['no_target']) == (8, 2)
    for tag, rows in (('no_target', count == 0), ('one_object', count == 1), ('several_objects', count > 1)):
        assert found['tags'][tag]['J'] == pytest.approx(100 * region[rows].mean(), **near)
        assert found['tags'][tag]['expressions'] == rows.sum()


def test_the_truth_scores_100(tmp_path, folder):
    split = records.open_records(folder, 'valid_u')
    write(tmp_path, lambda video, key: raw_mevis.union(video, raw_mevis.groups(video)[int(key)]))
    summary = score.score_submission('mevis', tmp_path, split, progress=False)
    for name in (*mevis.COLUMNS[:6], *scoring.MCS, 'tIoU', 'vIoU', 'J', 'F'):
        assert summary[name] == 100


def test_nothing_predicted(tmp_path, folder):
    """What a system gains that never answers."""
    split = records.open_records(folder, 'valid_u')
    write(tmp_path, lambda video, key: np.zeros_like(predicted(video, key)))
    summary = score.score_submission('mevis', tmp_path, split, progress=False)
    assert (summary['N-acc'], summary['T-acc']) == (100, 0)
    assert summary['J'] > summary['J_with_target'] > 0  # Objects are away from some frames.


def row(number, target, region, seen):
    everywhere = np.full(2, target)
    value = np.full(2, region)
    return scoring.with_statistics(value, value / 2, everywhere, np.full(2, seen)) | {
        'video': 'a',
        'expression': str(number),
        'tags': (),
        'target': target,
    }


def test_the_first_edition_has_no_sentence_without_target():
    summary = mevis.summarise([row(0, True, 0.5, True), row(1, True, 0.0, False)])
    assert summary['N-acc'] is None and summary['Final'] is None and summary['Final_with_target'] is None
    assert summary['T-acc'] == 50 and summary['J&F'] == summary['J&F_with_target'] == 18.75
    assert score.format_scores(summary).splitlines()[2].split()[:4] == ['all', '-', '18.75', '-']
    nothing = mevis.summarise([row(0, False, 1.0, False)])
    assert nothing['N-acc'] == 100 and nothing['T-acc'] is None and nothing['J&F_with_target'] is None
    json.dumps(nothing, allow_nan=False)


def test_final_is_the_mean_of_three():
    summary = mevis.summarise([row(0, True, 0.8, True), row(1, False, 1.0, False), row(2, False, 0.0, True)])
    assert summary['J&F'] == pytest.approx(100 * (0.8 + 1.0) * 0.75 / 3)
    assert summary['Final'] == pytest.approx((summary['J&F'] + 50 + 100) / 3)
    assert summary['Final_with_target'] == pytest.approx((60 + 50 + 100) / 3)


def no_video(root):
    shutil.rmtree(root / '3a1b2c3d4e5f')


def no_expression(root):
    shutil.rmtree(root / '3a1b2c3d4e5f' / '3')


def no_frame(root):
    (root / '3a1b2c3d4e5f' / '3' / '00008.png').unlink()


def one_more(root):
    shutil.copy(root / '3a1b2c3d4e5f' / '3' / '00008.png', root / '3a1b2c3d4e5f' / '3' / '00007.png')


def other_video(root):
    shutil.copytree(root / '3a1b2c3d4e5f', root / '5a1b2c3d4e5f')


def colour(root):
    Image.new('RGB', (96, 54)).save(root / '3a1b2c3d4e5f' / '3' / '00008.png')


def grey(root):
    Image.new('L', (96, 54), 1).save(root / '3a1b2c3d4e5f' / '3' / '00008.png')


def small(root):
    Image.new('L', (48, 27)).save(root / '3a1b2c3d4e5f' / '3' / '00008.png')


@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize(
    'spoil, message',
    [
        (no_video, 'missing video: 1\n    3a1b2c3d4e5f\n'),
        (no_expression, 'missing expression: 1\n    3a1b2c3d4e5f/3\n'),
        (no_frame, 'missing frame: 1\n    3a1b2c3d4e5f/3/00008.png\n'),
        (one_more, 'unexpected file: 1\n    3a1b2c3d4e5f/3/00007.png\n'),
        (other_video, 'unexpected video: 1\n    5a1b2c3d4e5f\n'),
        (colour, 'wrong mode: 1\n    3a1b2c3d4e5f/3/00008.png'),
        (grey, 'values other than 0 and 255: 1\n    3a1b2c3d4e5f/3/00008.png'),
        (small, 'wrong size: 1\n    3a1b2c3d4e5f/3/00008.png'),
    ],
)
def test_what_the_server_would_reject(tmp_path, folder, capsys, spoil, message, whole):
    root = write(tmp_path / 'run')
    spoil(root)
    pred = zipped(root, tmp_path / 'submission.zip') if whole else root
    assert run('mevis', folder, pred, tmp_path / 'scores.json') == 1
    printed = capsys.readouterr().out
    assert message in printed and 'not fit for upload' in printed
    assert not (tmp_path / 'scores.json').exists()


def test_a_folder_above_the_videos_is_refused(tmp_path, folder, capsys):
    root = write(tmp_path / 'run')
    for prefix in ('Annotations/', 'results/'):
        pred = zipped(root, tmp_path / 'submission.zip', prefix)
        assert run('mevis', folder, pred, tmp_path / 'scores.json') == 1
        printed = capsys.readouterr().out
        assert f'wrong top folder: 1\n    {prefix} should not be there' in printed
        assert f'in {prefix[:-1]}, run zip -r -X submission.zip .' in printed and 'missing' not in printed
    with zipfile.ZipFile(tmp_path / 'empty.zip', 'w') as archive:
        archive.writestr('x/y.png', b'')
    assert run('mevis', folder, tmp_path / 'empty.zip', tmp_path / 'scores.json') == 1
    assert 'it contains no video of this split' in capsys.readouterr().out


def test_the_top_folder_of_the_other_leaderboard_stays(tmp_path, folder, capsys):
    pred = zipped(write(tmp_path / 'run'), tmp_path / 'submission.zip')
    assert run('ytvos', folder, pred, tmp_path / 'scores.json', '--split=valid_u') == 1
    assert 'put the videos into one folder Annotations/' in capsys.readouterr().out
    pred = zipped(tmp_path / 'run', tmp_path / 'submission.zip', 'Annotations/')
    assert run('ytvos', folder, pred, tmp_path / 'scores.json', '--split=valid_u') == 0
    assert 'N-acc' not in capsys.readouterr().out


def test_other_protocols_refuse_groups_of_objects(tmp_path, folder, capsys):
    root = write(tmp_path / 'run')
    assert run('davis', folder, root, tmp_path / 'scores.json', '--split=valid_u') == 2
    assert 'video 2a1b2c3d4e5f has no index maps' in capsys.readouterr().err
    (tmp_path / 'results.json').write_text('[]')
    assert run('a2d', folder, tmp_path / 'results.json', tmp_path / 'scores.json', '--split=valid_u') == 2
    assert 'video 2a1b2c3d4e5f: its sentences refer to groups of objects' in capsys.readouterr().err
    record = records.open_records(folder, 'valid_u')[0]
    for protocol in ('a2d', 'davis'):
        with pytest.raises(ValueError, match='video 2a1b2c3d4e5f: .*evaluation.protocol'):
            protocols.choose(protocol).check(record.video)
    for decode in (record.decode_masks, lambda: record.decode_object(1, 0)):
        with pytest.raises(ValueError, match="Use config.evaluation.protocol 'mevis'"):
            decode()


def test_valid_is_only_checked(tmp_path, folder, capsys):
    root = write(tmp_path / 'run', lambda video, key: np.zeros((2, 54, 96), bool), raw_mevis.VIDEOS['valid'])
    assert run('mevis', folder, root, tmp_path / 'scores.json', '--split=valid') == 0
    assert "Split 'valid' has no ground truth: checked, not scored" in capsys.readouterr().out
    assert not (tmp_path / 'scores.json').exists()


def test_what_this_package_writes_is_what_is_read(tmp_path, folder):
    """Written below Annotations/, zipped without it."""
    for video, frames in VIDEOS.items():
        for key in map(str, range(4)):
            submission.write_masks(tmp_path, video, key, frames, predicted(video, key))
    submission.zip_submission(tmp_path / 'Annotations', tmp_path / 'submission.zip', ('',))
    with zipfile.ZipFile(tmp_path / 'submission.zip') as archive:
        assert '2a1b2c3d4e5f/0/00000.png' in archive.namelist() and len(archive.namelist()) == 28
    split = records.open_records(folder, 'valid_u')
    write(tmp_path / 'by hand')
    ours, other = (
        score.score_submission('mevis', tmp_path / name, split, progress=False)
        for name in ('submission.zip', 'by hand')
    )
    assert ours == other
