"""The ground truth of Ref-YouTube-VOS as its authors published it, whole and malformed."""

import json
import os
import shutil

import numpy as np
from PIL import Image
import pytest
import raw_tree
from score_files import add_junk_files, run, write_published_predictions


def test_published_ground_truth(tmp_path, published):
    pred, out = tmp_path / 'pred', tmp_path / 'scores.json'
    video = min(set(raw_tree.VALID) - set(raw_tree.TEST))
    write_published_predictions(pred, wrong={(video, '0')})
    assert run('ytvos', published, pred / 'submission.zip', out) == 0
    summary = json.loads(out.read_text())
    expressions = 2 * len(raw_tree.expressions())
    assert summary['expressions'] == expressions
    assert summary['J'] == pytest.approx(100 * (expressions - 1) / expressions)
    assert summary['videos'][video]['scores']['0']['J'] == 0
    assert run('ytvos', published.parent, pred, out, processes=3) == 0
    assert json.loads(out.read_text()) == summary
    # Videos without published masks must be in the submission, but are not scored.
    (published / 'Annotations' / video).rename(tmp_path / 'away')
    assert run('ytvos', published, pred, out) == 0
    assert json.loads(out.read_text())['J'] == 100
    (pred / 'Annotations' / video / '1' / f'{raw_tree.VALID[video][0]}.png').unlink()
    assert run('ytvos', published, pred, out) == 1


def test_damaged_ground_truth_is_refused(tmp_path, published, capsys):
    write_published_predictions(tmp_path / 'pred')
    name = sorted((published / 'Annotations').glob('*/*/*.png'))[5]
    name.write_bytes(name.read_bytes()[:60])
    assert run('ytvos', published, tmp_path / 'pred', tmp_path / 'scores.json', processes=2) == 2
    assert f'{name}: cannot be read' in capsys.readouterr().err
    Image.new('L', (7, 5)).save(name)
    assert run('ytvos', published, tmp_path / 'pred', tmp_path / 'scores.json') == 2
    assert f'{name}: is (5, 7) (H, W)' in capsys.readouterr().err
    (published / 'meta_expressions_challenge.json').write_text('[]')
    assert run('ytvos', published, tmp_path / 'pred', tmp_path / 'scores.json') == 2
    assert 'has no "videos"' in capsys.readouterr().err
    (published / 'meta_expressions_challenge.json').write_text('{"videos": {"a": {"frames": ["0"]}}}')
    assert run('ytvos', published, tmp_path / 'pred', tmp_path / 'scores.json') == 2
    assert 'videos.a needs' in capsys.readouterr().err


def edited(published, edit):
    path = published / 'meta_expressions_challenge.json'
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


@pytest.mark.parametrize(
    'edit, message',
    [
        (lambda videos: videos.clear(), 'has no "videos"'),
        *((with_video(value), 'needs "frames"') for value in (None, [], 3, 'x', {})),
        *(
            (renamed(name), 'the name of a video must')
            for name in ('', '..', '../x', '/etc', 'a\\b', '\x1b[2J', 'a\0', '\ud800')
        ),
        *((with_field(frames=value), 'needs "frames"') for value in (None, 3, 'x', {})),
        *(
            (with_field(frames=[value]), '.frames, a frame must')
            for value in (None, 3, [], '../00000', '/etc/passwd', '\x1b[2J', '')
        ),
        (with_field(frames=[]), 'no PNG of this video'),
        (with_field(frames=['00000'] * 2), 'lists a frame twice'),
        *(
            (with_field(expressions=value), 'needs "frames"')
            for value in (
                None,
                [],
                3,
                {'0': None},
                {'0': []},
                {'0': {}},
                {'0': {'exp': 'x'}},
                {'0': {'exp': 3, 'obj_id': '1'}},
            )
        ),
        *((with_expression(name), '.expressions, a key must') for name in ('..', '../../x', '', 'a/b', '\x1b[2J')),
        *(
            (with_expression(obj_id=value), 'expressions.0.obj_id must be a whole number from 1 to 254')
            for value in (
                None,
                True,
                1.0,
                '1.0',
                ' 1',
                '-1',
                '0',
                0,
                -1,
                255,
                '255',
                [],
                {},
                '9' * 5000,
                10**30,
                '\u00b2',
                'x',
            )
        ),
    ],
)
def test_malformed_json_is_refused(tmp_path, published, capsys, edit, message):
    write_published_predictions(tmp_path / 'pred')
    edited(published, edit)
    before = sorted(tmp_path.rglob('*'))
    assert run('ytvos', published, tmp_path / 'pred', tmp_path / 'scores.json') == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error and '\x1b' not in error and error.count('\n') == 1
    assert sorted(tmp_path.rglob('*')) == before


def test_malformed_masks_are_refused(tmp_path, published, capsys):
    write_published_predictions(tmp_path / 'pred')
    folder = published / 'Annotations' / VIDEO
    path = folder / '1' / f'{raw_tree.VALID[VIDEO][2]}.png'
    original = path.read_bytes()

    def error(image=None):
        if image is not None:
            image.save(path, 'PNG')
        assert run('ytvos', published, tmp_path / 'pred', tmp_path / 'scores.json') == 2
        return capsys.readouterr().err

    size = raw_tree.WIDTH, raw_tree.HEIGHT
    grey = np.zeros(size[::-1], np.uint8)
    grey[:9], grey[9:20] = 255, 128
    assert f'{path}: must have one value besides 0, has several' in error(Image.fromarray(grey))
    assert f'{path}: cannot be read (mode RGB' in error(Image.new('RGB', size))
    assert f'{path}: cannot be read (is 9000x8000 pixels' in error(Image.new('L', (9000, 8000)))
    path.unlink()
    os.mkfifo(path)
    assert f'{path}: cannot be read' in error()
    path.unlink()
    assert f'{path}: cannot be read' in error()
    for index in (grey > 0, (grey > 0) * np.uint8(1), (grey > 0) * np.uint8(7)):  # any value for the object
        Image.fromarray(index).save(path)
        assert run('ytvos', published, tmp_path / 'pred', tmp_path / 'scores.json') == 0
    path.write_bytes(original)
    for other in (folder / '2').iterdir():
        Image.new('L', (size[0] + 1, size[1])).save(other)
    message = error()
    assert '2/' in message and f'is {(size[1], size[0] + 1)} (H, W), but others of its video are' in message


def test_junk_files_are_ignored(tmp_path, published, capsys):
    pred, out = tmp_path / 'pred', tmp_path / 'scores.json'
    write_published_predictions(pred)
    edited(published, lambda videos: videos[VIDEO].pop('frames'))
    add_junk_files(published)
    path = published / 'meta_expressions_challenge.json'
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes().replace(b',', b',\r\n'))
    assert run('ytvos', published, pred / 'submission.zip', out) == 0
    summary = json.loads(out.read_text())
    assert summary['J'] == 100 and len(summary['videos']) == 2
    (tmp_path / 'deep').mkdir()
    published.parent.rename(tmp_path / 'deep' / 'raw')
    assert run('ytvos', tmp_path / 'deep', pred / 'submission.zip', out) == 0
    assert json.loads(out.read_text()) == summary
    shutil.copytree(tmp_path / 'deep' / 'raw', tmp_path / 'deep' / 'again')
    assert run('ytvos', tmp_path / 'deep', pred / 'submission.zip', out) == 2
    assert 'several copies of the ground truth' in capsys.readouterr().err
    raw = tmp_path / 'deep' / 'raw'
    assert run('ytvos', raw, pred / 'submission.zip', out, '--split=train') == 2
    assert "is the ground truth of split 'valid', not of 'train'" in capsys.readouterr().err
    add_junk_files(pred / 'Annotations')
    assert run('ytvos', tmp_path / 'deep' / 'raw', pred, out) == 1
    assert "operating system's junk" in capsys.readouterr().out


def test_hidden_videos_are_checked_but_not_scored(tmp_path, published, capsys):
    write_published_predictions(tmp_path / 'pred')
    shutil.rmtree(published / 'Annotations' / VIDEO)
    assert run('ytvos', published, tmp_path / 'pred', tmp_path / 'scores.json') == 0
    assert '1 videos have no ground truth: checked, not scored' in capsys.readouterr().out
