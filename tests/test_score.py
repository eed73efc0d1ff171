"""The command, on records made in memory, on trees as the benchmarks publish them, and on records as built."""

import dataclasses
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from PIL import Image
from pycocotools import mask as rle
import pytest
import raw_tree

from sgmg_jax import files, score, synthetic
from sgmg_jax.benchmarks import score as benchmark_of_scores
from sgmg_jax.data import metadata, records
from sgmg_jax.doctor import places as places_of_raw
from sgmg_jax.evaluation import davis, mean_ap, scoring
from sgmg_jax.score import __main__ as command
from sgmg_jax.score import coco, common, submission

SIZE = (36, 50)


def run(benchmark, gt, pred, out, *more, processes=1):
    return command.main([benchmark, f'--gt={gt}', f'--pred={pred}', f'--json={out}', f'--processes={processes}', *more])


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
    video = metadata.Video(
        name,
        tuple(f'{5 * number:05}' for number in range(3, 3 + frames)),
        *SIZE,
        tuple(expressions),
        not hidden,
    )
    return records.Record(video, (), () if hidden else tuple(map(png, masks)))


@pytest.fixture
def split():
    expression = metadata.Expression
    return [
        make_record('bear', 4, [expression('0', 'a', 1, ('motion',)), expression('1', 'b', 2, ())]),
        make_record('hidden', 2, [expression('0', 'c', -1, ())], hidden=True),
        make_record('lion', 1, [expression('0', 'd', 2, ('motion', 'unseen'))]),
    ]


def write(root, split, masks_of):
    for record in split:
        for expression in record.video.expressions:
            submission.write_masks(
                root, record.video.name, expression.id, record.video.frame_names, masks_of(record, expression)
            )
    submission.zip_submission(root, root / 'submission.zip')


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
        command.main(['ytvos', '--help'])
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
            submission.write_masks(root, video, key, frames, masks ^ ((video, key) in wrong))
    submission.zip_submission(root, root / 'submission.zip')


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
    printed = capsys.readouterr().out
    assert 'average' in printed and f'ground truth: {tmp_path}/DAVIS/Annotations_unsupervised/480p' in printed
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
    expression = metadata.Expression
    split = []
    for name, places, expressions in (
        ('-a_f_1', ((0, 1), (0, 2), (2, 1)), [expression('0', 'a', 1, ()), expression('1', 'b', 2, ('crowd',))]),
        ('b', ((1, 1),), [expression('2', 'c', 1, ())]),
    ):
        masks = tuple(png((rng.random(SIZE) < 0.4).astype(np.uint8)) for _ in places)
        video = metadata.Video(name, ('00001', '00002', '00003'), *SIZE, tuple(expressions), True, places)
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
            video = dataclasses.replace(video, expressions=(metadata.Expression(str(number + 1), 'x', 1, ()),))
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
            command.main(arguments)
        assert caught.value.code == 0 and words in capsys.readouterr().out
    for arguments in ([], ['mevis'], ['davis', '--gt=x'], ['a2d', '--gt=x', '--pred=y', '--task=unsupervised'],
                      ['ytvos', '--gt=x', '--pred=y', '--processes=0']):
        with pytest.raises(SystemExit) as caught:
            command.main(arguments)
        assert caught.value.code == 2


@pytest.mark.parametrize('benchmark, truth, folder', [
    ('a2d', 'a2d_sentences_test_annotations_in_coco_format.json', 'a2d_sentences'),
    ('jhmdb', 'jhmdb_sentences_gt_annotations_in_coco_format.json', 'jhmdb_sentences'),
    ('refcoco', 'instances_refcoco_val.json', 'refcoco')])
def test_the_examples_in_the_help_are_of_the_benchmark(capsys, benchmark, truth, folder):
    with pytest.raises(SystemExit):
        command.main([benchmark, '--help'])
    examples = [line for line in capsys.readouterr().out.splitlines() if line.startswith('    python')]
    start = f'    python -m sgmg_jax.score {benchmark} '
    assert len(examples) == 2 and all(line.startswith(start) for line in examples)
    assert f'--gt={truth} ' in examples[0] and f'--gt=data/tfds/{folder} ' in examples[1]


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


LIGHT = """
import sys
from sgmg_jax import commands
from {module} import main
try:
    main({arguments})
except SystemExit as end:
    assert end.code == 0
heavy = {{'jax', 'cv2', 'scipy', 'av', 'PIL', 'pycocotools', 'tensorflow_datasets', 'tqdm'}} & set(sys.modules)
sys.exit(f'imports {{heavy}}' if heavy else 0)
"""


@pytest.mark.parametrize('module, arguments', [
    ('sgmg_jax.score.__main__', ['--help']), ('sgmg_jax.score.__main__', ['davis', '--help']),
    ('sgmg_jax.score.__main__', ['a2d', '--help']), ('sgmg_jax.benchmarks.score', ['--help'])])
def test_help_imports_nothing_heavy(module, arguments):
    code = LIGHT.format(module=module, arguments=arguments)
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                         cwd=pathlib.Path(__file__).parents[1])
    assert run.returncode == 0 and 'usage: python -m' in run.stdout, run.stderr


@pytest.mark.parametrize('option', ['gt', 'pred'])
def test_scores_do_not_replace_what_is_scored(tmp_path, coco_files, capsys, option):
    before = [path.read_bytes() for path in coco_files]
    (tmp_path / 'link').symlink_to(dict(zip(('gt', 'pred'), coco_files))[option])
    for out in (tmp_path / f'{option}.json', tmp_path / 'link'):
        assert run('a2d', *coco_files, out) == 2
        assert f'--json={out}: is what is to be scored' in capsys.readouterr().err
    assert [path.read_bytes() for path in coco_files] == before


def test_the_command_knows_the_tasks():
    assert command.TASKS == davis.TASKS


def test_the_set_of_the_benchmark_is_as_large_as_davis():
    frames, objects = (sum(row[field] for row in benchmark_of_scores.SEQUENCES) for field in (1, 3))
    assert (len(benchmark_of_scores.SEQUENCES), frames, objects) == (30, 1999, 61)  # of DAVIS-2017's validation set
    assert {row[0] for row in benchmark_of_scores.SEQUENCES} == places_of_raw.DAVIS_VALID


def test_the_set_of_the_benchmark_can_be_scored(tmp_path):
    for annotators in (1, 4):
        root = tmp_path / str(annotators)
        benchmark_of_scores.write_set(root, [('a', 2, 64, 2)], annotators)
        assert run('davis', root / 'DAVIS', root / 'results', root / 'scores.json') == 0
        summary = json.loads((root / 'scores.json').read_text())
        assert len(summary['annotators']) == annotators and summary['objects'] == 2
        assert 30 < summary['J&F'] < 100
    with pytest.raises(SystemExit):
        benchmark_of_scores.main(['--annotators=2'])


def test_the_benchmark_runs_the_command_on_its_set(monkeypatch, capsys):
    write = benchmark_of_scores.write_set
    monkeypatch.setattr(benchmark_of_scores, 'write_set',
                        lambda root, annotators: write(root, [('a', 2, 64, 2)], annotators))
    assert benchmark_of_scores.main(['--runs=1', '--processes=1']) == 0
    machine, data, seconds = capsys.readouterr().out.splitlines()
    assert 'using 1 processes' in machine and '2 objects, 1 annotator(s); J&F ' in data
    assert len(seconds.split('(')[0].split()) == 2  # the word, and one run
    for wrong in ('--runs=0', '--processes=0'):
        assert benchmark_of_scores.main([wrong]) == 2


def summaries(tmp_path, split, pictures):
    """One of each kind."""
    write(tmp_path, split, shifted)
    truth = score.truth_of_records('a2d', pictures)
    results = [{key: annotation[key] for key in ('image_id', 'category_id', 'segmentation')} | {'score': 1}
               for annotation in truth['annotations']]
    (tmp_path / 'results.json').write_text(json.dumps(results))
    maps = [record for record in split if record.masks]
    for annotator in range(4):
        for record in maps:
            submission.write_maps(tmp_path / f'anno_{annotator}', record.video.name, record.video.frame_names,
                                   record.decode_masks() % scoring.VOID)
    yield score.score_submission('ytvos', tmp_path / 'submission.zip', split, progress=False)
    yield score.score_submission('a2d', tmp_path / 'results.json', pictures, progress=False)
    yield score.score_submission('davis', tmp_path, Split(maps), progress=False)


def test_tables_take_only_what_they_know(tmp_path, split, pictures):
    """Whoever adds to a summary must not break its table."""
    others = {'weights': 'a checkpoint', 'P@x': 'x', 'nothing': None, 'list': [1], 'more': {}}
    columns = []
    for summary in summaries(tmp_path, split, pictures):
        table = score.format_scores(summary)
        columns.append(table.splitlines()[0].split())
        for means in (summary, *summary.get('tags', {}).values(), *summary.get('annotators', {}).values(),
                      summary.get('best', {})):
            means |= others
        assert score.format_scores(others | summary) == table
        for other in others:
            assert other not in table
    assert columns == [
        ['J&F', 'J', 'F', 'J_recall', 'F_recall', 'J_decay', 'F_decay', 'J_variance', 'F_variance', 'J&F_variance',
         'expressions', 'frames'], list(mean_ap.STATISTICS),
        ['J', 'F', 'J&F', 'J_recall', 'F_recall', 'J_decay', 'F_decay', 'J_variance', 'F_variance', 'J&F_variance',
         'frames', 'objects']]


def test_names_are_escaped_wherever_they_go(tmp_path):
    """In the table, and in scores.json, which strict readers must be able to read."""
    score_of = scoring.with_statistics(np.array([0.5]), np.array([0.5]))
    name = 'a\x1b[2J\ud800\nb'
    summary = scoring.summarise([score_of | {'video': name, 'expression': '\udcff', 'tags': (name, 'größe 😀')}])
    table = score.format_scores(summary)
    assert len(table.splitlines()) == 5 and r'a\x1b[2J\ud800\nb' in table
    table.encode()
    score.write_scores(tmp_path / 'scores.json', summary)
    text = (tmp_path / 'scores.json').read_bytes().decode('utf-8')
    assert 'größe 😀' in text
    assert set(json.loads(text)['tags']) == {'a\x1b[2J\\ud800\nb', 'größe 😀'}
    assert list(json.loads(text)['videos']['a\x1b[2J\\ud800\nb']['scores']) == [r'\udcff']


def test_a_file_of_scores_that_cannot_be_written(tmp_path, split, opened, capsys):
    write(tmp_path, split, shifted)
    (tmp_path / 'folder').mkdir()
    before = os.umask(0o022)
    try:
        for out in (tmp_path / 'folder', tmp_path / 'submission.zip/scores.json', '/dev/full/x'):
            assert run('ytvos', 'x', tmp_path, out) == 2
            printed = capsys.readouterr()
            assert 'J&F_variance' in printed.out and str(out) in printed.err and 'Traceback' not in printed.err
        assert run('ytvos', 'x', tmp_path, tmp_path / 'scores.json') == 0
    finally:
        os.umask(before)
    assert (tmp_path / 'scores.json').stat().st_mode & 0o777 == 0o644
    assert not list(tmp_path.rglob('.partial*'))


def litter(folder):
    """What systems leave behind."""
    for place in (folder, *(path for path in folder.rglob('*') if path.is_dir())):
        for name in ('.DS_Store', 'Thumbs.db', 'desktop.ini'):
            (place / name).write_bytes(b'x')
        for path in list(place.iterdir()):
            if path.suffix in ('.png', '.txt', '.json') and not path.name.startswith('.'):
                path.with_name(f'._{path.name}').write_bytes(b'\0\5\x16\7')
    (folder / '__MACOSX' / '0').mkdir(parents=True)
    (folder / '__MACOSX' / '0' / '00000.png').write_bytes(b'x')


def test_davis_passes_over_what_systems_leave_behind(tmp_path, sequences, capsys):
    pred, out = tmp_path / 'pred', tmp_path / 'scores.json'
    for annotator in range(4):
        write_maps(pred / f'anno_{annotator}', {name: masks % scoring.VOID for name, masks in sequences.items()})
    litter(pred)
    litter(tmp_path / 'DAVIS/Annotations_unsupervised')
    (tmp_path / 'DAVIS/Annotations_unsupervised/480p/bear/empty').mkdir()
    lists = tmp_path / 'DAVIS/ImageSets/2017/val.txt'
    for text in (b'\xef\xbb\xbfbear\r\nlion\r\n', 'bear\n\n lion '.encode('utf-16'), b'bear\rlion', None):
        if text is None:
            lists.unlink()  # Every folder counts.
            (tmp_path / 'DAVIS/Annotations_unsupervised/480p/no frames').mkdir()
        else:
            lists.write_bytes(text)
        assert run('davis', tmp_path, pred, out) == 0
        summary = json.loads(out.read_text())
        assert summary['J&F'] == 100 and summary['objects'] == 4
        assert set(summary['annotators']['anno_3']['videos']) == {'bear', 'lion'}
    assert run('davis', tmp_path, zipped(pred), out) == 0
    # One folder deeper.
    (tmp_path / 'deep').mkdir()
    (tmp_path / 'DAVIS').rename(tmp_path / 'deep' / 'copy')
    assert run('davis', tmp_path / 'deep', pred, out) == 0 and json.loads(out.read_text()) == summary
    shutil.copytree(tmp_path / 'deep' / 'copy', tmp_path / 'deep' / 'other')
    assert run('davis', tmp_path / 'deep', pred, out) == 2
    assert 'several copies of the data set, in copy, other' in capsys.readouterr().err


@pytest.mark.parametrize('text, message', [
    ('bear\n../../etc\n', None), ('..\n', None), ('bear\n.\n', None), ('bear\\x\n', None), ('\x1b[2J\n', None),
    ('/JPEGImages/../00000.jpg\n', None), ('/x\n', None), ('', 'lists no sequence'), ('\n \n', 'lists no sequence'),
    ('bear\nwolf\n', 'of 1 sequences .* such as wolf')])
def test_davis_lists_that_are_wrong(tmp_path, sequences, capsys, text, message):
    write_maps(tmp_path / 'pred', {name: masks % scoring.VOID for name, masks in sequences.items()})
    (tmp_path / 'DAVIS/ImageSets/2017/val.txt').write_text(text)
    assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json') == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1 and '\x1b' not in error
    assert (message or 'val.txt: the name of a sequence must').split(' .* ')[0] in error


def davis_error(tmp_path, capsys, option='--task=unsupervised', processes=1):
    assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json', option, processes=processes) == 2
    _, error = capsys.readouterr().err.split('error: ')  # after the progress
    return error


def test_davis_ground_truth_that_is_wrong(tmp_path, sequences, capsys, monkeypatch):
    good = {name: masks % scoring.VOID for name, masks in sequences.items()}
    write_maps(tmp_path / 'pred', good)
    bear = tmp_path / 'DAVIS/Annotations_unsupervised/480p/bear'
    first, last = bear / '00000.png', bear / '00003.png'
    original = first.read_bytes()

    def with_first(image, **options):
        image.save(first, 'PNG', **options)
        return davis_error(tmp_path, capsys)

    for value in (0, scoring.VOID):  # No object, or a binary mask.
        assert 'sequence bear of the ground truth: the highest object id in its first frame, 00000, is 0' in with_first(
            Image.new('L', (42, 30), value))
    for value, right in ((20, True), (21, False), (254, False)):
        Image.new('L', (42, 30), value).save(first)
        if right:
            assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json') == 0
        else:
            assert f'is {value}; it must be 1 to 20' in davis_error(tmp_path, capsys, processes=2)
            assert f'is {value}; it must be' in davis_error(tmp_path, capsys, '--task=semi-supervised')
    assert f'{first}: cannot read (mode 1' in with_first(Image.new('1', (42, 30), 1))
    assert f'{first}: cannot read (mode RGB' in with_first(Image.new('RGB', (42, 30)))
    assert f'{bear / "00001.png"}: is (30, 42) (H, W), but 00000.png beside it (8000, 9000)' not in with_first(
        Image.new('L', (9000, 8000)))  # More than are read.
    assert f'{bear / "00001.png"}: is (30, 42) (H, W), but 00000.png beside it (31, 42)' in with_first(
        Image.new('L', (42, 31), 1))
    first.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 42 30\n')
    assert f'{first}: cannot read (is not PNG' in davis_error(tmp_path, capsys)
    first.unlink()
    os.mkfifo(first)
    assert f'{first}: cannot read' in davis_error(tmp_path, capsys)
    first.unlink()
    assert f'{first}: is missing' in davis_error(tmp_path, capsys)
    first.write_bytes(original)
    monkeypatch.setattr(common, 'MOST_PIXELS', 4 * 42 * 30)
    assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json') == 0
    monkeypatch.setattr(common, 'MOST_PIXELS', 4 * 42 * 30 - 1)
    assert f'{bear}: 4 masks of 42x30 pixels, at most 5,039' in davis_error(tmp_path, capsys)
    last.unlink()
    monkeypatch.undo()
    for file in (tmp_path / 'pred' / 'bear').glob('0000[123].png'):
        file.unlink()
    for frame in (1, 2):
        (bear / f'{frame:05d}.png').unlink()
    assert run('davis', tmp_path, tmp_path / 'pred', tmp_path / 'scores.json') == 0  # A single frame.
    assert 'sequence bear of the ground truth: has 1 frames' in davis_error(tmp_path, capsys, '--task=semi-supervised')


def test_davis_predictions_from_strangers(tmp_path, sequences, capsys):
    good = {name: masks % scoring.VOID for name, masks in sequences.items()}
    pred, out = tmp_path / 'pred', 'scores.json'
    write_maps(pred, good)
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
    write_maps(pred, good)
    with zipfile.ZipFile(zipped(pred), 'a') as archive:
        with pytest.warns(UserWarning, match='Duplicate name'):
            archive.writestr('pred/bear/00001.png', frames[0].read_bytes())
    assert run('davis', tmp_path, tmp_path / 'pred.zip', tmp_path / out) == 1
    assert 'file twice in the zip: 1' in capsys.readouterr().out
    (pred / 'lion').rename(tmp_path / 'lion')
    (pred / 'lion').symlink_to(tmp_path / 'lion')
    assert run('davis', tmp_path, pred, tmp_path / out) == 2
    assert 'lion: is a link to another folder' in capsys.readouterr().err


@pytest.mark.parametrize('benchmark', ['ytvos', 'davis'])
def test_files_in_the_place_of_folders(tmp_path, capsys, benchmark):
    (tmp_path / 'submission.zip').write_bytes(b'PK')
    os.mkfifo(tmp_path / 'pipe')
    for name in ('submission.zip', 'pipe'):
        assert run(benchmark, tmp_path / name, tmp_path, tmp_path / 'scores.json') == 2
        assert f'{name}: is a file; the ground truth is a folder' in capsys.readouterr().err


def edited(public, edit):
    path = public / 'meta_expressions_challenge.json'
    content = json.loads(path.read_text())
    edit(content['videos'])
    path.write_text(json.dumps(content))


VIDEO = min(set(raw_tree.VALID) - set(raw_tree.TEST))


def renamed(name):
    return lambda videos: videos.update({name: videos.pop(VIDEO)})


def with_expression(key='0', **values):
    return lambda videos: videos[VIDEO]['expressions'].update({key: videos[VIDEO]['expressions']['0'] | values})


def with_video(value):
    return lambda videos: videos.update({VIDEO: value})


def with_field(**values):
    return lambda videos: videos[VIDEO].update(values)


@pytest.mark.parametrize('edit, message', [
    (lambda videos: videos.clear(), 'has no "videos"'),
    *((with_video(value), 'needs "frames"') for value in (None, [], 3, 'x', {})),
    *((renamed(name), 'the name of a video must') for name in (
        '', '..', '../x', '/etc', 'a\\b', '\x1b[2J', 'a\0', '\ud800')),
    *((with_field(frames=value), 'needs "frames"') for value in (None, 3, 'x', {})),
    *((with_field(frames=[value]), '.frames, a frame must') for value in (
        None, 3, [], '../00000', '/etc/passwd', '\x1b[2J', '')),
    (with_field(frames=[]), 'no PNG of this video'),
    (with_field(frames=['00000'] * 2), 'has a frame twice'),
    *((with_field(expressions=value), 'needs "frames"') for value in (
        None, [], 3, {'0': None}, {'0': []}, {'0': {}}, {'0': {'exp': 'x'}}, {'0': {'exp': 3, 'obj_id': '1'}})),
    *((with_expression(name), '.expressions, a key must') for name in ('..', '../../x', '', 'a/b', '\x1b[2J')),
    *((with_expression(obj_id=value), 'expressions.0.obj_id must be a whole number from 1 to 254') for value in (
        None, True, 1.0, '1.0', ' 1', '-1', '0', 0, -1, 255, '255', [], {}, '9' * 5000, 10 ** 30, '\u00b2', 'x')),
])
def test_public_ground_truth_from_strangers(tmp_path, public, capsys, edit, message):
    predict_public(tmp_path / 'pred')
    edited(public, edit)
    before = sorted(tmp_path.rglob('*'))
    assert run('ytvos', public, tmp_path / 'pred', tmp_path / 'scores.json') == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error and '\x1b' not in error and error.count('\n') == 1
    assert sorted(tmp_path.rglob('*')) == before


def test_public_masks_from_strangers(tmp_path, public, capsys):
    predict_public(tmp_path / 'pred')
    folder = public / 'Annotations' / VIDEO
    path = folder / '1' / f'{raw_tree.VALID[VIDEO][2]}.png'
    original = path.read_bytes()

    def error(image=None):
        if image is not None:
            image.save(path, 'PNG')
        assert run('ytvos', public, tmp_path / 'pred', tmp_path / 'scores.json') == 2
        return capsys.readouterr().err

    size = raw_tree.WIDTH, raw_tree.HEIGHT
    grey = np.zeros(size[::-1], np.uint8)
    grey[:9], grey[9:20] = 255, 128
    assert f'{path}: has several values besides 0' in error(Image.fromarray(grey))
    assert f'{path}: cannot read (mode RGB' in error(Image.new('RGB', size))
    assert f'{path}: cannot read (is 9000x8000 pixels' in error(Image.new('L', (9000, 8000)))
    path.unlink()
    os.mkfifo(path)
    assert f'{path}: cannot read' in error()
    path.unlink()
    assert f'{path}: cannot read' in error()
    for index in (grey > 0, (grey > 0) * np.uint8(1), (grey > 0) * np.uint8(7)):  # Whatever stands for the object.
        Image.fromarray(index).save(path)
        assert run('ytvos', public, tmp_path / 'pred', tmp_path / 'scores.json') == 0
    path.write_bytes(original)
    for other in (folder / '2').iterdir():
        Image.new('L', (size[0] + 1, size[1])).save(other)
    assert "2/" in (message := error()) and f'is {(size[1], size[0] + 1)} (H, W), others of its video' in message


def test_public_ground_truth_with_what_systems_leave_behind(tmp_path, public, capsys):
    pred, out = tmp_path / 'pred', tmp_path / 'scores.json'
    predict_public(pred)
    edited(public, lambda videos: videos[VIDEO].pop('frames'))
    litter(public)
    path = public / 'meta_expressions_challenge.json'
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes().replace(b',', b',\r\n'))
    assert run('ytvos', public, pred / 'submission.zip', out) == 0
    summary = json.loads(out.read_text())
    assert summary['J'] == 100 and len(summary['videos']) == 2
    (tmp_path / 'deep').mkdir()
    public.parent.rename(tmp_path / 'deep' / 'raw')
    assert run('ytvos', tmp_path / 'deep', pred / 'submission.zip', out) == 0
    assert json.loads(out.read_text()) == summary
    shutil.copytree(tmp_path / 'deep' / 'raw', tmp_path / 'deep' / 'again')
    assert run('ytvos', tmp_path / 'deep', pred / 'submission.zip', out) == 2
    assert 'several copies of the ground truth' in capsys.readouterr().err
    raw = tmp_path / 'deep' / 'raw'
    assert run('ytvos', raw, pred / 'submission.zip', out, '--split=train') == 2
    assert "is the ground truth of the split valid, not of 'train'" in capsys.readouterr().err
    litter(pred / 'Annotations')
    assert run('ytvos', tmp_path / 'deep' / 'raw', pred, out) == 1
    assert "operating system's junk" in capsys.readouterr().out


def test_hidden_videos_are_counted(tmp_path, public, capsys):
    predict_public(tmp_path / 'pred')
    shutil.rmtree(public / 'Annotations' / VIDEO)
    assert run('ytvos', public, tmp_path / 'pred', tmp_path / 'scores.json') == 0
    assert '1 videos have no ground truth: checked, not scored' in capsys.readouterr().out


@pytest.fixture
def coco_files(tmp_path, pictures):
    """Ground truth and results that score 100."""
    truth = score.truth_of_records('a2d', pictures)
    results = [{key: annotation[key] for key in ('image_id', 'category_id', 'segmentation')} | {'score': 0.5}
               for annotation in truth['annotations']]
    gt, pred = tmp_path / 'gt.json', tmp_path / 'pred.json'
    gt.write_text(json.dumps(truth))
    pred.write_text(json.dumps(results))
    return gt, pred


def test_coco_files_from_strangers(tmp_path, coco_files, capsys):
    gt, pred = coco_files
    out, text = tmp_path / 'scores.json', pred.read_text()
    assert run('a2d', gt, pred, out) == 0
    assert 'say again' not in capsys.readouterr().out
    summary = json.loads(out.read_text())
    pred.write_text(json.dumps(json.loads(text) + json.loads(text)[:2]))
    assert run('a2d', gt, pred, out) == 0
    assert '\n2 results say again what another says' in capsys.readouterr().out

    def refused(words):
        assert run('a2d', gt, pred, out) == 1
        printed = capsys.readouterr().out
        assert all(word in printed for word in ('unreadable results: 1', str(pred), *words.split('|'))), printed

    for content, words in (
            (b'[' * 100_000, 'too many levels'), (b'[NaN]', 'NaN is no number'), (b'', 'it is empty'),
            (b'\xff', 'not text'),
            (b'[{"score": 1, "score": 2}]', "the key 'score' is there twice"), (b'[' + b'1' * 5000 + b']', 'digits'),
            (b'PK\5\6' + bytes(18), '0 .json files')):
        pred.write_bytes(content)
        refused(words)
    pred.unlink()
    os.mkfifo(pred)
    refused('is a pipe')
    pred.unlink()
    pred.mkdir()
    refused('is a folder')
    pred.rmdir()
    with zipfile.ZipFile(pred, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a.json', '1e999')
        archive.writestr('b.json', '[]')
    refused('2 .json files in the zip')
    with zipfile.ZipFile(pred, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a.json', '[{]')
    refused('a.json: is not JSON')
    for junk in ('._a.json', '__MACOSX/a.json', '__MACOSX/x/._a.json'):
        with zipfile.ZipFile(pred, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(junk, 'x')
            archive.writestr('deep/a.json', b'\xef\xbb\xbf' + text.encode())
        assert run('a2d', gt, pred, out) == 0 and json.loads(out.read_text()) == summary
    pred.write_text(text)
    for broken, words in ((b'[' * 100_000, 'too many levels'), (b'{"images": [Infinity]}', 'no number')):
        gt.write_bytes(broken)
        assert run('a2d', gt, pred, out) == 2
        assert words in capsys.readouterr().err
    gt.unlink()
    os.mkfifo(gt)
    assert run('a2d', gt, pred, out) == 2
    assert 'is a pipe' in capsys.readouterr().err


def test_results_larger_than_memory(tmp_path, coco_files, capsys, monkeypatch):
    gt, pred = coco_files
    text = pred.read_text()
    with zipfile.ZipFile(pred, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a.json', text)
    with monkeypatch.context() as patched:
        patched.setattr(coco, 'LARGEST_MEMBER', len(text) - 1)
        assert run('a2d', gt, pred, tmp_path / 'scores.json') == 1
        assert f'a.json: it has {len(text):,} bytes, at most {len(text) - 1:,}' in capsys.readouterr().out
        patched.setattr(coco, 'LARGEST_MEMBER', len(text))
        assert run('a2d', gt, pred, tmp_path / 'scores.json') == 0
        patched.setattr(files, 'MOST_MEMORY', 10)
        assert run('a2d', gt, pred, tmp_path / 'scores.json') == 2
        assert f'{gt}: is JSON of too many values' in capsys.readouterr().err
    assert run('a2d', gt, pred, tmp_path / 'scores.json') == 0


@pytest.mark.parametrize('benchmark', ['a2d', 'jhmdb', 'refcoco'])
def test_ground_truth_and_results_swapped(tmp_path, coco_files, capsys, benchmark):
    gt, pred = coco_files
    assert run(benchmark, pred, gt, tmp_path / 'scores.json') == 2
    assert 'are ground truth and predictions swapped?' in capsys.readouterr().err
    assert run(benchmark, gt, gt, tmp_path / 'scores.json') == 1
    assert 'are the two swapped?' in capsys.readouterr().out


@pytest.mark.parametrize('field, value', [('id', 0), ('id', 2), ('category_id', 2), ('area', -1.0), ('iscrowd', 2)])
def test_coco_ground_truth_that_pycocotools_would_take(tmp_path, coco_files, capsys, field, value):
    gt, pred = coco_files
    truth = json.loads(gt.read_text())
    truth['annotations'][0][field] = value
    gt.write_text(json.dumps(truth))
    assert run('a2d', gt, pred, tmp_path / 'scores.json') == 2
    error = capsys.readouterr().err
    assert f'error: {gt}: annotations' in error and field in error
    assert not (tmp_path / 'scores.json').exists()


def test_records_without_ground_truth_are_named(tmp_path, pictures):
    hidden = [dataclasses.replace(record, video=dataclasses.replace(record.video, has_masks=False))
              for record in pictures]
    with pytest.raises(ValueError, match="^the records: no list 'images'"):
        score.score_submission('a2d', tmp_path / 'x.json', hidden, progress=False)
    opened = Split(hidden)
    opened.directory = 'built/a2d_sentences'
    with pytest.raises(ValueError, match="^built/a2d_sentences: no list 'images'"):
        score.score_submission('a2d', tmp_path / 'x.json', opened, progress=False)


def test_objects_that_no_map_can_hold_are_named(tmp_path, split):
    video = split[0].video
    wrong = dataclasses.replace(video, expressions=(metadata.Expression('0', 'a', 300, ()),))
    split = [dataclasses.replace(split[0], video=wrong)]
    write(tmp_path, split, lambda record, expression: np.zeros((4, *SIZE), bool))
    with pytest.raises(ValueError, match='video bear, expression 0: object_id 300'):
        score.score_submission('ytvos', tmp_path, split, progress=False)


def damaged(data, content):
    """Some bytes changed, put in or cut off."""
    content = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[place:place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3) | st.sampled_from(
            [b'-', b'e', b'9' * 20, b'null', b'[]', b'{}', b'"x"', b'1e999', b'true', b'NaN']))
    return bytes(content[:data.draw(st.integers(len(content) * 3 // 4, len(content)))])


SCORED = {}


@settings(max_examples=80)
@given(st.data())
def test_damaged_json_is_refused_or_scored(tmp_path_factory, data):
    """Ground truth and results, in which anything may stand: exit status 0, 1 or 2 and never a traceback."""
    if not SCORED:
        root = tmp_path_factory.mktemp('json')
        box = np.zeros((1, 6, 7), bool)
        box[:, 1:4, 2:6] = True
        video = metadata.Video('a', ('1',), 6, 7, (metadata.Expression('0', 'x', 1, ()),), True, ((0, 1),))
        truth = score.truth_of_records('a2d', [records.Record(video, (), (png(box[0].astype(np.uint8)),))])
        truth['annotations'][0]['segmentation'] = [[2, 1, 6, 1, 6, 4, 2, 4]]
        results = [{'image_id': 'v_a_f_1_i_0', 'category_id': 1, 'score': 0.5,
                    'segmentation': {'size': [6, 7], 'counts': 'd03U2'}}]
        mean_ap.check_truth(truth)
        SCORED.update(root=root, gt=json.dumps(truth).encode(), pred=json.dumps(results).encode())
    root = SCORED['root']
    which = data.draw(st.sampled_from(['gt', 'pred']))
    for name in ('gt', 'pred'):
        content = SCORED[name]
        (root / f'{name}.json').write_bytes(damaged(data, content) if name == which else content)
    assert run('a2d', root / 'gt.json', root / 'pred.json', root / 'scores.json') in (0, 1, 2)


@settings(max_examples=40)
@given(st.data())
def test_damaged_public_json_is_refused_or_scored(tmp_path_factory, data):
    if 'valid' not in SCORED:
        valid = tmp_path_factory.mktemp('public')
        content = {'videos': {'a': {'frames': ['0', '1'], 'expressions': {'0': {'exp': 'x', 'obj_id': '1'}}}}}
        masks = np.zeros((2, 6, 7), bool)
        masks[:, 1:4] = True
        submission.write_masks(valid, 'a', '0', ('0', '1'), masks)
        SCORED.update(valid=valid, challenge=json.dumps(content).encode())
    valid = SCORED['valid']
    (valid / 'meta_expressions_challenge.json').write_bytes(damaged(data, SCORED['challenge']))
    assert run('ytvos', valid, valid, valid / 'scores.json') in (0, 1, 2)


@settings(max_examples=40)
@given(st.data())
def test_damaged_davis_folders_are_refused_or_scored(tmp_path_factory, data):
    root = tmp_path_factory.mktemp('davis')
    maps = np.zeros((2, 6, 7), np.uint8)
    maps[:, 1:4], maps[:, 4:] = 1, 2
    for folder in ('DAVIS/Annotations', 'pred'):
        write_maps(root / folder, {'a': maps, 'b': maps})
    (root / 'DAVIS/ImageSets/2017').mkdir(parents=True)
    (root / 'DAVIS/ImageSets/2017/val.txt').write_text('a\nb\n')
    paths = sorted(path for path in root.rglob('*') if path.is_file())
    path = data.draw(st.sampled_from(paths))
    match data.draw(st.sampled_from(['damage', 'remove', 'pipe', 'folder', 'link'])):
        case 'damage':
            path.write_bytes(damaged(data, path.read_bytes()))
        case 'remove':
            path.unlink()
        case 'pipe':
            path.unlink()
            os.mkfifo(path)
        case 'folder':
            path.unlink()
            path.mkdir()
        case 'link':
            path.unlink()
            path.symlink_to(data.draw(st.sampled_from(['/', '/dev/zero', 'nowhere', path.name, '.'])))
    assert run('davis', root, root / 'pred', root / 'scores.json') in (0, 1, 2)
