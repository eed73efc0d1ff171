import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zlib

import numpy as np
from PIL import Image
import PIL.EpsImagePlugin
import pytest
import raw_tree

from datasets import build
from sgmg_jax.data import decoding, metadata, records
from sgmg_jax.raw import youtube

ROOT = pathlib.Path(__file__).parents[2]
TRAIN_JSON = pathlib.Path('meta_expressions/train/meta_expressions.json')


@pytest.fixture
def raw(tmp_path):
    return raw_tree.write(tmp_path / 'raw')


def built(raw, split, name='ref_youtube_vos'):
    return records.open_records(build.build(name, raw, raw.parent / 'tfds'), split)


def test_train_keeps_every_byte_name_and_id(raw):
    source = built(raw, 'train')
    assert [video.name for video in source.videos] == sorted(raw_tree.TRAIN)
    for record in source:
        names = raw_tree.TRAIN[record.video.name]  # The file lists them backwards; frames are sorted.
        assert list(record.video.frame_names) == names
        assert (record.video.height, record.video.width) == (raw_tree.HEIGHT, raw_tree.WIDTH)
        folder = raw / 'train' / 'JPEGImages' / record.video.name
        assert list(record.frames) == [(folder / f'{name}.jpg').read_bytes() for name in names]
        np.testing.assert_array_equal(record.decode_masks(), [raw_tree.mask(p) for p in range(len(names))])
        written = raw_tree.expressions()
        assert {
            expression.id: {'exp': expression.text, 'obj_id': str(expression.object_id)}
            for expression in record.video.expressions
        } == written


def test_valid_leaves_out_the_videos_of_test_and_has_no_masks(raw, caplog):
    source = built(raw, 'valid')
    assert 'is not built' not in caplog.text  # Without frames, the file of test still has its use.
    assert [video.name for video in source.videos] == ['ccc0000003', 'eee0000005']
    assert {e.object_id for video in source.videos for e in video.expressions} == {-1}
    assert not any(video.has_masks for video in source.videos)
    assert source[1].decode_masks() is None and len(source[1].frames) == 4
    with pytest.raises(ValueError, match="no split 'test'"):  # Its frames are absent.
        records.open_records(source.directory, 'test')


def test_without_a_test_file_valid_has_the_videos_with_frames(raw):
    shutil.rmtree(raw / 'meta_expressions' / 'test')
    assert [video.name for video in built(raw, 'valid').videos] == ['ccc0000003', 'eee0000005']


def test_test_split_is_built_if_it_has_frames(raw):
    raw_tree.save_frames(raw, 'test', {name: raw_tree.VALID[name] for name in raw_tree.TEST})
    assert [video.name for video in built(raw, 'test').videos] == raw_tree.TEST


def test_public_ground_truth_is_merged_into_index_masks(raw):
    raw_tree.add_ground_truth(raw)
    source = built(raw, 'valid')
    for record in source:
        assert [e.object_id for e in record.video.expressions] == [1, 1, 2, 2]
        np.testing.assert_array_equal(record.decode_masks(), [raw_tree.mask(p) for p in range(4)])
        assert Image.open(io.BytesIO(record.masks[0])).mode == 'L'


def test_tags_are_kept(raw):
    raw_tree.edit_json(
        raw / TRAIN_JSON, lambda videos: videos['aaa0000001']['expressions']['0'].update(tags=['moves', 'held'])
    )
    first, second = built(raw, 'train').videos[0].expressions[:2]
    assert first.tags == ('moves', 'held') and second.tags == ()


@pytest.mark.parametrize('level', ['', '480p'])
def test_ref_davis_keeps_void_and_finds_the_480p_level(raw, level):
    names = raw_tree.VALID['ccc0000003']
    shutil.rmtree(raw / 'train')
    shutil.rmtree(raw / 'valid')
    shutil.rmtree(raw / 'meta_expressions')
    raw_tree.save_frames(raw, 'valid', {'blackswan': names})
    masks = [raw_tree.mask(position) for position in range(4)]
    for index, name in zip(masks, names):
        index[0, :7] = 255
        raw_tree.save_mask(raw / 'valid' / 'Annotations' / level / 'blackswan' / f'{name}.png', index)
    if level:
        (raw / 'valid' / 'JPEGImages' / 'blackswan').rename(raw / 'moved')
        (raw / 'valid' / 'JPEGImages' / level).mkdir()
        (raw / 'moved').rename(raw / 'valid' / 'JPEGImages' / level / 'blackswan')
        # Some copies keep it for its palette.
        raw_tree.save_mask(raw / 'valid' / 'Annotations' / 'blackswan' / '00000.png', masks[0])
    raw_tree.write_json(
        raw / 'meta_expressions' / 'valid' / 'meta_expressions.json',
        {'blackswan': {'expressions': raw_tree.expressions(), 'frames': names}},
    )
    record = built(raw, 'valid', 'ref_davis')[0]
    np.testing.assert_array_equal(record.decode_masks(), masks)
    assert len(record.video.expressions) == 4


def remove_field(*path):
    def edit(videos):
        for key in path[:-1]:
            videos = videos[key]
        del videos[path[-1]]

    return edit


def change(key, value):
    return lambda videos: videos['aaa0000001']['expressions']['1'].update({key: value})


@pytest.mark.parametrize(
    'edit, message',
    [
        (
            remove_field('aaa0000001', 'expressions', '1', 'exp'),
            r'train.meta_expressions.json: video aaa0000001, expression 1: field "exp" is missing',
        ),
        (
            remove_field('aaa0000001', 'expressions', '1', 'obj_id'),
            r'train.meta_expressions.json: video aaa0000001, expression 1: field "obj_id" is missing',
        ),
        (remove_field('aaa0000001', 'frames'), r'video aaa0000001: field "frames" is missing'),
        (remove_field('aaa0000001', 'expressions'), r'video aaa0000001: field "expressions" is missing'),
        (change('exp', '  '), r'video aaa0000001, expression 1: field "exp" is an empty sentence'),
        (change('exp', 3), r'expression 1: field "exp" has the type int'),
        (change('obj_id', 'cat'), r'expression 1: field "obj_id" must be a whole number .* is \'cat\''),
        (change('obj_id', '0'), r'expression 1: field "obj_id" must be a whole number'),
        (
            change('obj_id', '7'),
            r'video aaa0000001, expression 1: obj_id 7 is in no mask of .*aaa0000001, which hold the ids \[1, 2\]',
        ),
        (change('tags', 'motion'), r'expression 1: field "tags" must be a list of words'),
        (lambda videos: videos['aaa0000001'].update(frames=['00020', '00020']), r'"frames" names a frame twice'),
        (lambda videos: videos['aaa0000001'].update(frames=[]), r'"frames" must be a list of frame names'),
        (lambda videos: videos['aaa0000001'].update(frames=['00020', '00021']), r'00021.jpg: missing, though listed'),
        (lambda videos: videos.update(zzz=videos['aaa0000001']), r'zzz: missing folder with the frames of video zzz'),
        (lambda videos: videos.clear(), r'field "videos" is empty'),
    ],
)
def test_wrong_expressions_file(raw, edit, message):
    raw_tree.edit_json(raw / TRAIN_JSON, edit)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        built(raw, 'train')
    assert not list((raw.parent / 'tfds').rglob('*.json'))  # Nothing half-written is left.


FRAME = pathlib.Path('train/JPEGImages/bbb0000002/00015.jpg')
MASK = pathlib.Path('train/Annotations/bbb0000002/00015.png')


def truncate_frame(raw):
    file = raw / FRAME
    file.write_bytes(file.read_bytes()[:-200])


def small_mask(raw):
    raw_tree.save_mask(raw / MASK, raw_tree.mask(3)[:, :90].copy())


def small_frame(raw):
    Image.fromarray(raw_tree.frame('x', 0)[:50]).save(raw / FRAME)


def colour_mask(raw):
    Image.fromarray(raw_tree.frame('x', 0)).save(raw / MASK)


def overlap(raw):
    raw_tree.add_ground_truth(raw)
    mask = Image.fromarray(((raw_tree.mask(1) > 0) * 255).astype(np.uint8))
    for expression in '23':
        mask.save(raw / 'valid' / 'Annotations' / 'eee0000005' / expression / '00005.png')


def disagree(raw):
    raw_tree.add_ground_truth(raw)
    (raw / 'valid' / 'Annotations' / 'eee0000005' / '1' / '00005.png').write_bytes(
        (raw / 'valid' / 'Annotations' / 'eee0000005' / '3' / '00005.png').read_bytes()
    )


@pytest.mark.parametrize(
    'spoil, message',
    [
        (truncate_frame, r'bbb0000002.00015.jpg: broken JPEG \(.*truncated.*\). Unpack this frame again'),
        (small_frame, r'bbb0000002.00015.jpg: is 96x50 pixels, but 00000.jpg of the same video is 96x54'),
        (small_mask, r'bbb0000002.00015.png: the mask is 90x54 pixels, its frame 96x54'),
        (colour_mask, r'bbb0000002.00015.png: has the colour mode RGB'),
        (lambda raw: (raw / MASK).unlink(), r'bbb0000002.00015.png: missing; every frame needs a mask'),
        (lambda raw: (raw / MASK).write_bytes((raw / MASK).read_bytes()[:-60]), r'00015.png: broken PNG'),
        (
            lambda raw: shutil.rmtree(raw / 'train' / 'Annotations'),
            r'missing folder with the masks of video aaa0000001',
        ),
        (lambda raw: (raw / TRAIN_JSON).write_text('{'), r'train.meta_expressions.json: is not JSON'),
        (overlap, r'eee0000005.2.00005.png: obj_id 2 claims pixels that obj_id 1 has \(expression 0\)'),
        (disagree, r'eee0000005.1.00005.png: differs from the mask of expression 0'),
    ],
)
def test_wrong_files(raw, spoil, message):
    spoil(raw)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        built(raw, 'train')
    assert not list((raw.parent / 'tfds').rglob('*.array_record*'))


def test_an_empty_folder_names_the_expected_paths(tmp_path):
    (tmp_path / 'raw').mkdir()
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        build.build('ref_youtube_vos', tmp_path / 'nowhere', tmp_path / 'tfds')
    with pytest.raises(FileNotFoundError, match='raw: no such folder, or an empty one'):
        build.build('ref_youtube_vos', tmp_path / 'raw', tmp_path / 'tfds')
    (tmp_path / 'raw' / 'junk').touch()
    paths = 'none of these exist: .*train.meta_expressions.json.*train.JPEGImages'
    with pytest.raises(FileNotFoundError, match=paths):
        build.build('ref_youtube_vos', tmp_path / 'raw', tmp_path / 'tfds')


def test_overwrite_replaces_and_a_failed_one_keeps_what_was_there(raw):
    assert len(built(raw, 'train')) == 2
    with pytest.raises(FileExistsError, match='Pass --overwrite'):
        built(raw, 'train')
    raw_tree.edit_json(raw / TRAIN_JSON, lambda videos: videos.pop('aaa0000001'))
    folder = build.build('ref_youtube_vos', raw, raw.parent / 'tfds', overwrite=True)
    assert [video.name for video in records.open_records(folder, 'train').videos] == ['bbb0000002']
    truncate_frame(raw)
    with pytest.raises(ValueError, match='broken JPEG'):
        build.build('ref_youtube_vos', raw, raw.parent / 'tfds', overwrite=True)
    assert len(records.open_records(folder, 'train')) == 1
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_interrupted_build_is_never_read(raw):
    source = built(raw, 'train')
    left = pathlib.Path(source.directory).with_name('incomplete.ABC123_1.0.0')
    pathlib.Path(source.directory).rename(left)  # What a killed build leaves at the worst moment.
    with pytest.raises(FileNotFoundError, match='holds no built data set'):
        records.open_records(raw.parent / 'tfds', 'train')
    assert len(built(raw, 'train')) == 2
    assert not left.exists()


def test_a_split_of_only_bad_videos_is_an_error(raw):
    shutil.rmtree(raw / 'train' / 'Annotations')
    with pytest.raises(ValueError, match='every video of a split was left out as bad'):
        build.build('ref_youtube_vos', raw, raw.parent / 'tfds', skip_bad_videos=True)


def test_a_killed_overwrite_loses_nothing(raw):
    folder = pathlib.Path(built(raw, 'train').directory)
    folder.rename(folder.with_name('incomplete.replaced_1.0.0'))  # What it leaves.
    with pytest.raises(FileExistsError, match='Pass --overwrite'):
        built(raw, 'train')
    assert len(records.open_records(folder, 'train')) == 2


def test_part_of_the_public_ground_truth(raw, caplog):
    raw_tree.add_ground_truth(raw)
    shutil.rmtree(raw / 'valid' / 'Annotations' / 'ccc0000003')
    hidden, known = built(raw, 'valid')
    assert hidden.video.name == 'ccc0000003' and hidden.masks == () and not hidden.video.has_masks
    assert {e.object_id for e in hidden.video.expressions} == {-1}
    assert known.video.has_masks and {e.object_id for e in known.video.expressions} == {1, 2}
    assert 'Video ccc0000003 has no masks' in caplog.text


@pytest.mark.parametrize('shards', (0, 3))
def test_shards_must_fit_the_videos(raw, shards):
    with pytest.raises(ValueError, match=f'--shards = {shards}: '):
        build.build('ref_youtube_vos', raw, raw.parent / 'tfds', shards=shards)
    assert not (raw.parent / 'tfds/ref_youtube_vos/1.0.0').exists()


def test_command(raw):
    command = [
        sys.executable,
        '-m',
        'datasets.build',
        'ref_youtube_vos',
        f'--raw={raw}',
        f'--out={raw.parent / "tfds"}',
        '--shards=2',
    ]
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert 'train 2 videos, valid 2 videos' in done.stdout
    source = records.open_records(raw.parent / 'tfds', 'train')
    assert [source[number].video.name for number in range(2)] == sorted(raw_tree.TRAIN)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert again.returncode == 2 and again.stderr.splitlines()[-1].startswith('error: ')


NAMES = ['../up', '/abs', '..', '.', '.hidden', '', ' a', 'a\x1b[31m', 'a\u202eb', '\udc80', 'a\\b', 'x' * 201]


@pytest.mark.parametrize('kind', ['video', 'frame', 'expression'])
def test_invalid_file_names_are_refused(raw, kind):
    text = (raw / TRAIN_JSON).read_text()
    for name in NAMES:
        videos = json.loads(text)['videos']
        video = videos['aaa0000001']
        if kind == 'video':
            videos[name] = videos.pop('aaa0000001')
        elif kind == 'frame':
            video['frames'][2] = name
        else:
            video['expressions'][name] = video['expressions'].pop('1')
        raw_tree.write_json(raw / TRAIN_JSON, videos)
        with pytest.raises(ValueError, match=r'train.meta_expressions.json: .* must ') as caught:
            youtube.splits(raw)
        assert str(caught.value).isprintable()


def test_object_ids_are_whole_numbers_from_1_to_254():
    for value in (True, 1.0, [1], '１', ' 1', '1_0', '+1', '01e0', '0', 0, 255, '255', 10**300, '9' * 5000, None):
        assert metadata.parse_object_id(value) is None
    assert [metadata.parse_object_id(value) for value in (1, '1', '01', 254, '254')] == [1, 1, 1, 254, 254]


@pytest.mark.parametrize('sentence', ['\ud800', 'a' * 10_001, '\u3000\n'])
def test_invalid_sentences_are_refused(raw, sentence):
    raw_tree.edit_json(raw / TRAIN_JSON, change('exp', sentence))
    with pytest.raises(ValueError, match='video aaa0000001, expression 1: field "exp" ') as caught:
        youtube.splits(raw)
    assert len(str(caught.value)) < 500


def test_uppercase_endings_and_junk_files(raw):
    before = list(built(raw, 'train'))
    for folder in [raw, *(path for path in raw.rglob('*') if path.is_dir())]:
        for name in ('._00000.jpg', '._aaa', '.DS_Store', 'Thumbs.db', 'desktop.ini', 'notes.txt'):
            (folder / name).write_bytes(b'\x00\x05\x16\x07')
        (folder / 'stray').mkdir()
        (folder / '__MACOSX').mkdir()
    for number, file in enumerate(sorted(raw.glob('train/*/*/0*'))):
        file.rename(file.with_suffix(('.JPG', '.jpeg', '.Jpg')[number % 3] if file.suffix == '.jpg' else '.PNG'))
    for file in raw.glob('meta_expressions/*/*.json'):
        file.write_bytes(
            b'\xef\xbb\xbf' + json.dumps(json.loads(file.read_text()), indent=1).replace('\n', '\r\n').encode()
        )
    folder = build.build('ref_youtube_vos', raw, raw.parent / 'again')
    assert list(records.open_records(folder, 'train')) == before


def replace(path, data):
    return lambda raw: (raw / path).write_bytes(data)


def thin_frames(raw):
    for file in (raw / 'train/JPEGImages/aaa0000001').iterdir():
        Image.new('RGB', (2000, 1)).save(file)


def without_end(raw):
    data = (raw / FRAME).read_bytes()
    (raw / FRAME).write_bytes(data[:-2])


def huge(raw):
    """A PNG that claims 3.6 billion pixels."""
    data = bytearray((raw / MASK).read_bytes())
    data[16:24] = (60_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    (raw / MASK).write_bytes(data)


def second_ending(raw):
    shutil.copy(raw / FRAME, (raw / FRAME).with_suffix('.jpeg'))


def linked_out(raw):
    shutil.move(raw / FRAME, raw.parent / 'outside.jpg')
    (raw / FRAME).symlink_to(raw.parent / 'outside.jpg')


def pipe(raw):
    (raw / FRAME).unlink()
    os.mkfifo(raw / FRAME)


POSTSCRIPT = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 54\n%%EndComments\nshowpage\n'
BAD_FILES = [
    (replace(FRAME, POSTSCRIPT), 'bbb0000002.00015.jpg: broken JPEG .is not JPEG'),
    (replace(MASK, POSTSCRIPT), 'bbb0000002.00015.png: broken PNG .is not PNG'),
    (thin_frames, 'aaa0000001.00020.jpg: 2000x1 pixels; a frame has at most'),
    (without_end, 'bbb0000002.00015.jpg: broken JPEG'),
    (huge, '00015.png: broken PNG .*3600000000 pixels'),
    (second_ending, '00015.jpeg and 00015.jpg differ only in their ending'),
    (pipe, '00015.jpg: is a pipe'),
    (linked_out, '00015.jpg: is a link to .*outside.jpg, outside of'),
]


@pytest.mark.parametrize('spoil, message', BAD_FILES)
def test_bad_files_are_refused_or_skipped(raw, spoil, message, monkeypatch):
    monkeypatch.setattr(PIL.EpsImagePlugin, 'Ghostscript', lambda *_, **__: pytest.fail('Ghostscript was started'))
    spoil(raw)
    with pytest.raises(ValueError, match=message):
        built(raw, 'train')
    folder = build.build('ref_youtube_vos', raw, raw.parent / 'tfds', skip_bad_videos=True)
    assert len(records.open_records(folder, 'train')) == 1


def test_folders_may_be_linked_from_elsewhere(raw):
    before = list(built(raw, 'train'))
    for folder in (raw / 'train', raw / 'meta_expressions' / 'valid'):
        shutil.move(folder, raw.parent / f'disk-{folder.name}')
        folder.symlink_to(raw.parent / f'disk-{folder.name}')
    folder = build.build('ref_youtube_vos', raw, raw.parent / 'again')
    assert list(records.open_records(folder, 'train')) == before


def test_a_test_file_without_videos_makes_no_split(raw):
    raw_tree.write_json(raw / 'meta_expressions/test/meta_expressions.json', {})
    (raw / 'test/JPEGImages').mkdir(parents=True)
    shutil.copytree(raw / 'valid/JPEGImages/ccc0000003', raw / 'valid/JPEGImages/ddd0000004')
    assert len(built(raw, 'valid')) == 3
    assert records.describe(raw.parent / 'tfds')[1] == {'train': 2, 'valid': 3}


def test_videos_larger_than_a_record_are_refused(raw, monkeypatch):
    monkeypatch.setattr(decoding, 'LARGEST_RECORD', 5000)
    with pytest.raises(ValueError, match='aaa0000001: has more than 5,000 bytes for one video'):
        built(raw, 'train')
