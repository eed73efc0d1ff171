"""The command, on records made in memory, on trees as the benchmarks publish them, and on records as built."""

import dataclasses
import io
import json
import zipfile

import numpy as np
from PIL import Image
from pycocotools import mask as rle
import pytest
import raw_tree

from sgmg_jax import score
from sgmg_jax.data import records, synthetic
from sgmg_jax.evaluation import davis, mean_ap, scoring
from sgmg_jax.inference import leaderboard

SIZE = (36, 50)


def run(benchmark, gt, pred, out, *more, processes=1):
    return score.main([benchmark, f'--gt={gt}', f'--pred={pred}', f'--json={out}', f'--processes={processes}', *more])


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
            leaderboard.write_masks(
                root, record.video.name, expression.id, record.video.frame_names, masks_of(record, expression)
            )
    leaderboard.zip_submission(root, root / 'submission.zip')


def shifted(record, expression):
    if not record.masks:
        return np.zeros((len(record.video.frame_names), *SIZE), bool)
    return np.roll(record.decode_masks() == expression.object_id, 3, axis=2)


def test_scores_by_hand(tmp_path, split):
    write(tmp_path, split, shifted)
    summary = score.score_submission('ytvos', tmp_path, split, progress=False)
    assert summary == score.score_submission('ytvos', tmp_path / 'submission.zip', split, progress=False)

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
    summary = score.score_submission('ytvos', tmp_path, split, progress=False)
    assert summary['J'] == summary['F'] == summary['J&F'] == summary['J_recall'] == 100


def test_no_ground_truth(tmp_path, split):
    write(tmp_path, split[1:2], shifted)
    with pytest.raises(ValueError, match='no scored expression'):
        score.score_submission('ytvos', tmp_path, split[1:2], progress=False)


def test_unscorable_submission_names_the_file(tmp_path, split):
    write(tmp_path, split, shifted)
    name = 'Annotations/bear/1/00020.png'
    Image.new('L', (7, 5)).save(tmp_path / name)
    with pytest.raises(ValueError, match=f'{name} is .5, 7.'):
        score.score_submission('ytvos', tmp_path, split, progress=False)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=name):
        score.score_submission('ytvos', tmp_path, split, progress=False)


class Split(list):
    @property
    def videos(self):
        return tuple(record.video for record in self)


@pytest.fixture
def opened(monkeypatch, split):
    """The command reads `split` as if it were built records."""
    monkeypatch.setattr(records, 'open_records', lambda directory, name: Split(split))


def test_command_scores(tmp_path, split, opened, capsys):
    write(tmp_path, split, shifted)
    out = tmp_path / 'new/scores.json'
    assert run('ytvos', 'x', tmp_path / 'submission.zip', out) == 0
    printed = capsys.readouterr().out
    assert 'complete and well-formed, 3 videos, 11 masks' in printed and 'unseen' in printed
    assert json.loads(out.read_text()) == score.score_submission('ytvos', tmp_path, split, progress=False)
    assert [path.name for path in out.parent.iterdir()] == ['scores.json']


def test_command_checks_only(tmp_path, split, opened, capsys):
    write(tmp_path, split, shifted)
    out = tmp_path / 'scores.json'
    assert run('ytvos', 'x', tmp_path, out, '--check-only') == 0
    assert 'well-formed' in capsys.readouterr().out and not out.exists()


def test_command_refuses_a_wrong_submission(tmp_path, split, opened, capsys):
    write(tmp_path, split, shifted)
    (tmp_path / 'Annotations/hidden/0/00020.png').unlink()  # No ground truth, but the server wants it.
    out = tmp_path / 'scores.json'
    assert run('ytvos', 'x', tmp_path, out) == 1
    printed = capsys.readouterr().out
    assert (
        'missing frame: 1' in printed and 'Annotations/hidden/0/00020.png' in printed and 'to mend' in printed
    )
    assert not out.exists()


def test_command_refuses_wrong_arguments(tmp_path, opened, capsys):
    assert run('ytvos', 'x', tmp_path / 'none.zip', tmp_path / 'scores.json') == 2
    assert 'none.zip: there is no such submission' in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        score.main(['ytvos', '--help'])
    assert caught.value.code == 0 and 'Annotations/<video>/' in capsys.readouterr().out


def test_missing_records(tmp_path, capsys):
    assert run('ytvos', tmp_path / 'none', tmp_path, tmp_path / 'scores.json') == 2
    assert 'none: no such folder' in capsys.readouterr().err


def test_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match='[Nn]a[Nn]|JSON compliant'):
        score.write_scores(tmp_path / 'scores.json', {'J': float('nan')})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def public(tmp_path):
    """The published ground truth of Ref-YouTube-VOS."""
    root = raw_tree.write(tmp_path / 'raw')
    raw_tree.add_ground_truth(root)
    return root / 'valid'


def predict_public(root, wrong=()):
    for video in sorted(set(raw_tree.VALID) - set(raw_tree.TEST)):
        frames = raw_tree.VALID[video]
        for key, expression in raw_tree.expressions().items():
            masks = np.stack([raw_tree.mask(t) == int(expression['obj_id']) for t in range(len(frames))])
            leaderboard.write_masks(root, video, key, frames, masks ^ ((video, key) in wrong))
    leaderboard.zip_submission(root, root / 'submission.zip')


def test_public_ground_truth(tmp_path, public):
    pred, out = tmp_path / 'pred', tmp_path / 'scores.json'
    video = min(set(raw_tree.VALID) - set(raw_tree.TEST))
    predict_public(pred, wrong={(video, '0')})
    assert run('ytvos', public, pred / 'submission.zip', out) == 0
    summary = json.loads(out.read_text())
    expressions = 2 * len(raw_tree.expressions())
    assert summary['expressions'] == expressions
    assert summary['J'] == pytest.approx(100 * (expressions - 1) / expressions)
    assert summary['videos'][video]['scores']['0']['J'] == 0
    assert run('ytvos', public.parent, pred, out, processes=3) == 0
    assert json.loads(out.read_text()) == summary
    # Videos without published masks are wanted in the submission, and not scored.
    (public / 'Annotations' / video).rename(tmp_path / 'away')
    assert run('ytvos', public, pred, out) == 0
    assert json.loads(out.read_text())['J'] == 100
    (pred / 'Annotations' / video / '1' / f'{raw_tree.VALID[video][0]}.png').unlink()
    assert run('ytvos', public, pred, out) == 1


def test_broken_public_ground_truth(tmp_path, public, capsys):
    predict_public(tmp_path / 'pred')
    name = sorted((public / 'Annotations').glob('*/*/*.png'))[5]
    name.write_bytes(name.read_bytes()[:60])
    assert run('ytvos', public, tmp_path / 'pred', tmp_path / 'scores.json', processes=2) == 2
    assert f'{name}: cannot read' in capsys.readouterr().err
    Image.new('L', (7, 5)).save(name)
    assert run('ytvos', public, tmp_path / 'pred', tmp_path / 'scores.json') == 2
    assert f'{name}: is (5, 7) (H, W)' in capsys.readouterr().err
    (public / 'meta_expressions_challenge.json').write_text('[]')
    assert run('ytvos', public, tmp_path / 'pred', tmp_path / 'scores.json') == 2
    assert 'has no "videos"' in capsys.readouterr().err
    (public / 'meta_expressions_challenge.json').write_text('{"videos": {"a": {"frames": ["0"]}}}')
    assert run('ytvos', public, tmp_path / 'pred', tmp_path / 'scores.json') == 2
    assert 'videos.a needs' in capsys.readouterr().err


def write_maps(root, maps):
    for name, masks in maps.items():
        for t, mask in enumerate(masks):
            raw_tree.save_mask(root / name / f'{t:05d}.png', mask)


@pytest.fixture
def sequences(tmp_path):
    """DAVIS in <tmp_path>/DAVIS: {sequence: index maps [T H W]}."""
    rng = np.random.default_rng(0)
    maps = {name: rng.integers(0, 3, (frames, 5, 7), np.uint8).repeat(6, 1).repeat(6, 2)
            for name, frames in (('bear', 4), ('lion', 3))}
    maps['bear'][:, :3] = scoring.VOID
    write_maps(tmp_path / 'DAVIS/Annotations_unsupervised/480p', maps)
    lists = tmp_path / 'DAVIS/ImageSets/2017'
    lists.mkdir(parents=True)
    (lists / 'val.txt').write_text('bear\nlion\n')
    return maps


def swapped(masks):
    """Objects 1 and 2 change their ids, and all moves a little."""
    return np.roll(np.array([0, 2, 1], np.uint8)[masks % scoring.VOID], 1, axis=1)


def zipped(folder):
    with zipfile.ZipFile(folder.with_suffix('.zip'), 'w') as archive:
        for file in sorted(folder.rglob('*.*')):
            archive.write(file, f'{folder.name}/{file.relative_to(folder)}')
    return folder.with_suffix('.zip')


@pytest.mark.parametrize('task', davis.TASKS)
def test_davis(tmp_path, sequences, task, capsys):
    pred, out = tmp_path / 'DVS_Annotations', tmp_path / 'scores.json'
    for annotator in range(4):
        write_maps(pred / f'anno_{annotator}', {
            name: swapped(masks) if annotator % 2 else masks % scoring.VOID for name, masks in sequences.items()})
    option = f'--task={task}'
    assert run('davis', tmp_path, pred, out, option) == 0
    assert 'average' in capsys.readouterr().out
    summary = json.loads(out.read_text())
    for annotator, of_annotator in summary['annotators'].items():
        expected = davis.summarise({'x': {
            name: davis.score_sequence(
                masks, [(swapped(masks) if annotator in ('anno_1', 'anno_3') else masks % scoring.VOID)[
                    davis.scored_frames(len(masks), task)]], task)[0]
            for name, masks in sequences.items()}})
        assert of_annotator == expected['annotators']['x']
    assert summary['annotators']['anno_0']['J&F'] == 100 and summary['objects'] == 4
    assert summary['J&F'] == pytest.approx((100 + summary['annotators']['anno_1']['J&F']) / 2)
    assert (summary['J'] > 60) == (task == 'unsupervised')
    for source, processes in ((zipped(pred), 1), (pred, 2)):
        assert run('davis', tmp_path / 'DAVIS', source, out, option, processes=processes) == 0
        assert json.loads(out.read_text()) == summary
    # One annotator alone.
    assert run('davis', tmp_path, pred / 'anno_1', out, option) == 0
    assert json.loads(out.read_text())['annotators'] == {'results': summary['annotators']['anno_1']}


def test_davis_needs_only_the_frames_that_count(tmp_path, sequences):
    write_maps(tmp_path / 'pred', {name: masks % scoring.VOID for name, masks in sequences.items()})
    (tmp_path / 'pred/bear/00000.png').unlink()
    out = tmp_path / 'scores.json'
    assert run('davis', tmp_path, tmp_path / 'pred', out, '--task=semi-supervised') == 0
    assert run('davis', tmp_path, tmp_path / 'pred', out) == 1


def test_davis_notices_incomplete_ground_truth(tmp_path, sequences, capsys):
    write_maps(tmp_path / 'pred', {name: masks % scoring.VOID for name, masks in sequences.items()})
    bear = tmp_path / 'DAVIS/Annotations_unsupervised/480p/bear'
    (bear / '00003.png').unlink()
    assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json') == 1
    text = capsys.readouterr().out
    assert 'frame without ground truth: 1' in text and 'bear/00003.png' in text
    (bear / '00001.png').unlink()
    assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json') == 2
    assert f'{bear / "00001.png"}: is missing' in capsys.readouterr().err


def test_davis_against_records(tmp_path, split, opened):
    pred, out = tmp_path / 'pred', tmp_path / 'scores.json'
    del split[1]
    write_maps(pred, {'bear': split[0].decode_masks() % scoring.VOID, 'lion': split[1].decode_masks() % scoring.VOID})
    for record in split:
        for old, new in zip(sorted((pred / record.video.name).iterdir()), record.video.frame_names):
            old.rename(old.with_name(f'new{new}.png'))
        for file in (pred / record.video.name).iterdir():
            file.rename(file.with_name(file.name.removeprefix('new')))
    assert run('davis', 'x', pred, out) == 0
    assert json.loads(out.read_text())['J'] == 100
    assert score.score_submission('davis', pred, Split(split), progress=False) == json.loads(out.read_text())


def test_davis_lists_what_is_wrong(tmp_path, sequences, capsys):
    good, out = {name: masks % scoring.VOID for name, masks in sequences.items()}, tmp_path / 'scores.json'
    pred = tmp_path / 'pred'

    def printed(option='--task=unsupervised', processes=1):
        assert run('davis', tmp_path, pred, out, option, processes=processes) == 1
        assert not out.exists()
        text = capsys.readouterr().out
        assert 'to mend' in text and 'not scored' in text
        return text

    write_maps(pred, {'bear': good['bear']})
    (pred / 'bear/00002.png').unlink()
    text = printed()
    assert 'missing sequence: 1' in text and 'lion' in text and 'bear/00002.png' in text
    write_maps(pred, good)
    Image.new('L', (7, 5)).save(pred / 'bear/00000.png')
    Image.new('RGB', (42, 30)).save(pred / 'bear/00001.png')
    (pred / 'lion/00001.png').write_bytes(b'\x89PNG')
    Image.new('L', (42, 30), 255).save(pred / 'lion/00002.png')
    for processes in (1, 2):
        text = printed(processes=processes)
        for kind in ('wrong size', 'wrong mode', 'unreadable PNG', 'too many objects'):
            assert f'{kind}: 1' in text
        assert 'H x W is 5 x 7, of its frames 30 x 42' in text and 'object id 255, at most 20 here' in text
    write_maps(pred, good)
    Image.new('L', (42, 30), 3).save(pred / 'lion/00001.png')
    assert 'object id 3, at most 2 here' in printed('--task=semi-supervised')
    assert run('davis', tmp_path, pred, out, '--check-only') == 0 and not out.exists()
    (pred / 'bear').rename(tmp_path / 'old')
    (pred / 'lion').rename(tmp_path / 'pred/anno_2')
    assert 'no folder with' in printed()
    assert run('davis', tmp_path / 'pred', pred, out) == 2
    assert 'no index PNGs' in capsys.readouterr().err


@pytest.fixture
def pictures():
    """Records whose masks are those of one object in one frame."""
    rng = np.random.default_rng(0)
    expression = records.Expression
    split = []
    for name, places, expressions in (
        ('-a_f_1', ((0, 1), (0, 2), (2, 1)), [expression('0', 'a', 1, ()), expression('1', 'b', 2, ('crowd',))]),
        ('b', ((1, 1),), [expression('2', 'c', 1, ())]),
    ):
        masks = tuple(png((rng.random(SIZE) < 0.4).astype(np.uint8)) for _ in places)
        video = records.Video(name, ('00001', '00002', '00003'), *SIZE, tuple(expressions), True, places)
        split.append(records.Record(video, (), masks))
    return split


@pytest.mark.parametrize('benchmark, names', [
    ('a2d', ['v_-a_f_1_f_1_i_0', 'v_-a_f_1_f_3_i_0', 'v_-a_f_1_f_1_i_1', 'v_b_f_2_i_2']),
    ('jhmdb', ['v_b_f_2']),
    ('refcoco', [1, 2]),
])
def test_coco_truth_of_records(pictures, benchmark, names):
    if benchmark == 'jhmdb':
        pictures = pictures[1:]
    if benchmark == 'refcoco':
        pictures = [pictures[1], pictures[1]]
        for number in (0, 1):
            video = pictures[number].video
            video = dataclasses.replace(video, expressions=(records.Expression(str(number + 1), 'x', 1, ()),))
            pictures[number] = dataclasses.replace(pictures[number], video=video)
    truth = score.truth_of_records(benchmark, pictures)
    mean_ap.check_truth(truth)
    assert [image['id'] for image in truth['images']] == names
    assert json.loads(json.dumps(truth)) == truth
    if benchmark == 'a2d':
        mask = pictures[0].decode_object(1, 2)
        np.testing.assert_array_equal(rle.decode(truth['annotations'][1]['segmentation']), mask)
        assert truth['annotations'][1]['area'] == mask.sum()
        assert [annotation['iscrowd'] for annotation in truth['annotations']] == [0, 0, 1, 0]


@pytest.mark.parametrize('benchmark', ['a2d', 'jhmdb', 'refcoco'])
def test_coco_benchmarks(tmp_path, pictures, benchmark, capsys):
    truth = score.truth_of_records(benchmark, pictures[1:])
    results = [{'image_id': annotation['image_id'], 'category_id': 1, 'score': score,
                'segmentation': annotation['segmentation'] if score > 0.5 else coco_black()}
               for annotation in truth['annotations'] for score in (0.3, 0.9)]
    gt, pred, out = (tmp_path / name for name in ('gt.json', 'pred.json', 'scores.json'))
    gt.write_text(json.dumps(truth))
    pred.write_text(json.dumps(results))
    assert run(benchmark, gt, pred, out) == 0
    printed = capsys.readouterr().out
    assert 'P@0.9' in printed and 'DONE' not in printed
    summary = json.loads(out.read_text())
    assert summary == mean_ap.evaluate(truth, results)
    assert summary['mAP'] == pytest.approx(100) == summary['overall_IoU']
    with zipfile.ZipFile(tmp_path / 'pred.zip', 'w') as archive:
        archive.write(pred, 'results/pred.json')
        archive.writestr('__MACOSX/._pred.json', b'')
    assert run(benchmark, gt, tmp_path / 'pred.zip', out) == 0
    assert json.loads(out.read_text()) == summary

    out.unlink()
    assert run(benchmark, gt, pred, out, '--check-only') == 0 and not out.exists()
    pred.write_text(json.dumps(results[:-2] + [results[0] | {'image_id': 'v_x_f_1'}]))
    assert run(benchmark, gt, pred, out) == 1
    printed = capsys.readouterr().out
    assert 'unknown image_id: 1' in printed and 'image without result: 1' in printed and not out.exists()
    pred.write_text('[{')
    assert run(benchmark, gt, pred, out) == 1 and 'unreadable results' in capsys.readouterr().out
    assert run(benchmark, gt, tmp_path / 'none.json', out) == 2
    gt.write_text('{"images": []}')
    assert run(benchmark, gt, pred, out) == 2 and 'not COCO ground truth' in capsys.readouterr().err


def coco_black():
    return {'size': list(SIZE), 'counts': rle.encode(np.zeros(SIZE, np.uint8, order='F'))['counts'].decode()}


def test_coco_against_records(tmp_path, pictures, monkeypatch, capsys):
    monkeypatch.setattr(records, 'open_records', lambda directory, name: Split(pictures))
    truth = score.truth_of_records('a2d', pictures)
    pred, out = tmp_path / 'pred.json', tmp_path / 'scores.json'
    pred.write_text(json.dumps([{key: annotation[key] for key in ('image_id', 'category_id', 'segmentation')}
                                | {'score': 1} for annotation in truth['annotations']]))
    assert run('a2d', tmp_path / 'none', pred, out) == 0
    summary = json.loads(out.read_text())
    assert score.score_submission('a2d', pred, pictures, progress=False) == summary
    assert summary['mean_IoU'] == summary['P@0.9'] == pytest.approx(100)
    assert set(summary['videos']['-a_f_1']['scores']) == {'0', '1'}
    assert run('ytvos', tmp_path / 'none', pred, out) == 2
    assert 'masks of single frames' in capsys.readouterr().err
    assert run('davis', tmp_path / 'none', pred, out) == 2
    assert 'video -a_f_1 has no index maps' in capsys.readouterr().err


def test_command_teaches(capsys):
    for arguments, words in (
        (['--help'], 'davis'),
        (['davis', '--help'], 'anno_3'),
        (['refcoco', '--help'], '"image_id"'),
    ):
        with pytest.raises(SystemExit) as caught:
            score.main(arguments)
        assert caught.value.code == 0 and words in capsys.readouterr().out
    for arguments in ([], ['mevis'], ['davis', '--gt=x'], ['a2d', '--gt=x', '--pred=y', '--task=unsupervised'],
                      ['ytvos', '--gt=x', '--pred=y', '--processes=0']):
        with pytest.raises(SystemExit) as caught:
            score.main(arguments)
        assert caught.value.code == 2


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
            leaderboard.write_masks(
                tmp_path / 'run',
                record.video.name,
                expression.id,
                record.video.frame_names,
                masks if position else ~masks,
            )
    leaderboard.zip_submission(tmp_path / 'run', tmp_path / 'submission.zip')
    out = tmp_path / 'scores.json'
    arguments = ['ytvos', directory, tmp_path / 'submission.zip', out]
    assert run(*arguments) == 0
    summary = json.loads(out.read_text())
    # Several processes read the records for themselves.
    assert run(*arguments, processes=2) == 0 and json.loads(out.read_text()) == summary
    total = sum(len(video.expressions) for video in split.videos)
    assert summary['expressions'] == total > len(split)
    # The first expression of each video is answered with the background, the others perfectly.
    assert summary['J'] == pytest.approx(100 * (total - len(split)) / total)
    assert set(summary['tags']) == {
        tag for video in split.videos for e in video.expressions for tag in e.tags
    }

    with zipfile.ZipFile(tmp_path / 'submission.zip', 'a') as archive:
        archive.writestr('__MACOSX/x', b'')
    assert run(*arguments) == 1
    assert 'junk: 1' in capsys.readouterr().out
