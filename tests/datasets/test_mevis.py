"""MeViS: unions, sentences of several objects and of none, packed frames, damaged files."""

import gzip
import json
import tarfile

import numpy as np
from PIL import Image
import pytest
import raw_mevis
import raw_tree

from datasets import build
from sgmg_jax.data import metadata, records
from sgmg_jax.raw import mask_dict, mevis

TRAIN, SECOND = raw_mevis.VIDEOS['train']


@pytest.fixture
def raw(tmp_path):
    return raw_mevis.write(tmp_path / 'raw')


def built(raw, split, **options):
    return records.open_records(build.build('mevis', raw, raw.parent / 'tfds', **options), split)


def check_split(raw, split):
    source = built(raw, split, overwrite=True)
    assert [video.name for video in source.videos] == sorted(raw_mevis.VIDEOS[split])
    for record in source:
        video = record.video
        names = raw_mevis.VIDEOS[split][video.name]
        assert list(video.frame_names) == names
        frames = [np.asarray(Image.open(raw.parent / 'kept' / split / video.name / f'{n}.jpg')) for n in names]
        np.testing.assert_array_equal(record.decode_frames(), frames)
        assert [e.text for e in video.expressions] == list(raw_mevis.TEXTS)
        masks_of = record.decode_targets()
        for expression, group in zip(video.expressions, raw_mevis.groups(video.name)):
            np.testing.assert_array_equal(masks_of(expression), raw_mevis.union(video.name, group))
            assert len(expression.objects) == len(group)
            assert expression.tags == (mevis.TAGS[min(len(group), 2)],)
        some = [len(names) - 1, 0]
        np.testing.assert_array_equal(
            record.decode_targets(some)(video.expressions[2]), raw_mevis.union(video.name, group_of(video, 2))[some]
        )
        assert len(record.masks) == video.num_masks


def group_of(video, number):
    return raw_mevis.groups(video.name)[number]


@pytest.fixture
def kept(raw):
    """A copy of the frames, for `check_split`."""
    for split, videos in raw_mevis.VIDEOS.items():
        for video, names in videos.items():
            folder = raw.parent / 'kept' / split / video
            folder.mkdir(parents=True)
            for name in names:
                file = raw / split / 'JPEGImages' / video / f'{name}.jpg'
                (folder / file.name).write_bytes(file.read_bytes())


@pytest.mark.parametrize('split', ['train', 'valid_u'])
def test_unions_are_those_of_coco(raw, kept, split):
    check_split(raw, split)


@pytest.mark.parametrize('split', ['train', 'valid_u'])
def test_packed_frames_are_read_as_they_are(raw, kept, split):
    raw_mevis.pack(raw, split)
    check_split(raw, split)


def test_overlapping_objects_are_in_different_layers(raw):
    masks = [raw_mevis.object_masks(TRAIN, number) for number in sorted(raw_mevis.OBJECTS[TRAIN])]
    (video, _) = built(raw, 'train').videos
    assert len(video.mask_layers) > 1
    assert sorted(number for layer in video.mask_layers for number in layer) == [1, 2, 3]
    for layer in video.mask_layers:
        assert sum(masks[number - 1].astype(int) for number in layer).max() == 1


def test_valid_has_sentences_and_no_ground_truth(raw):
    source = built(raw, 'valid')
    assert [e.text for e in source.videos[0].expressions] == list(raw_mevis.TEXTS)
    assert {e.objects for e in source.videos[0].expressions} == {None}
    assert not source.videos[0].has_masks and source[0].masks == ()


def test_objects_are_known_by_anno_id(raw):
    """obj_id only counts; a sentence may name an object twice."""
    edit = {'exp': 'twice', 'obj_id': [5, 5, 6], 'anno_id': [7, 7, 3]}
    raw_tree.edit_json(
        raw / 'train' / raw_mevis.EXPRESSIONS, lambda videos: videos[TRAIN]['expressions'].update({'9': edit})
    )
    record = built(raw, 'train')[0]
    np.testing.assert_array_equal(record.decode_targets()(record.video.expressions[-1]), raw_mevis.union(TRAIN, [0, 1]))


@pytest.mark.parametrize('name', mevis.LISTS)
def test_every_name_of_the_sentences_is_known(raw, name):
    (raw / 'train' / raw_mevis.EXPRESSIONS).rename(raw / 'train' / name)
    assert len(built(raw, 'train')) == 2


def test_sentences_of_several_editions_are_refused(raw):
    (raw / 'train' / 'meta_expressions.json').write_bytes((raw / 'train' / raw_mevis.EXPRESSIONS).read_bytes())
    with pytest.raises(
        ValueError, match='train: holds meta_expressions.json and meta_expressions_v2.json, .* Move all'
    ):
        built(raw, 'train')


def test_a_split_without_its_masks_is_left_out(raw, caplog):
    (raw / 'train' / 'mask_dict.json').unlink()
    assert len(built(raw, 'valid_u')) == 2
    assert "Split 'train' is not built: " in caplog.text and 'train/mask_dict.json does not exist' in caplog.text
    with pytest.raises(ValueError, match="no split 'train'"):
        records.open_records(raw.parent / 'tfds', 'train')
    for split in ('valid_u', 'valid'):
        (raw / split).rename(raw / f'no {split}')
    with pytest.raises(FileNotFoundError, match='no split of the data set is there.*mask_dict.json'):
        built(raw, 'train', overwrite=True)


def test_a_video_without_any_object(raw):
    def edit(videos):
        for expression in videos[SECOND]['expressions'].values():
            expression.update(obj_id=[], anno_id=[])

    raw_tree.edit_json(raw / 'train' / raw_mevis.EXPRESSIONS, edit)
    record = built(raw, 'train')[1]
    assert record.video.has_masks and record.masks == () and record.video.mask_layers == ()
    assert not record.decode_targets()(record.video.expressions[0]).any()


def test_an_object_in_no_frame_is_said(raw, caplog):
    edit_masks(raw, lambda masks: masks.update({'7': [None] * 4}))
    record = built(raw, 'train')[0]
    assert f'key "7", video {TRAIN}: is in no frame' in caplog.text
    assert not record.decode_targets()(record.video.expressions[0]).any()


def change(**fields):
    return lambda videos: videos[TRAIN]['expressions']['1'].update(fields)


@pytest.mark.parametrize(
    'edit, message',
    [
        (lambda videos: videos[TRAIN]['expressions']['1'].pop('exp'), 'expression 1: field "exp" is missing'),
        (lambda videos: videos[TRAIN]['expressions']['1'].pop('obj_id'), 'expression 1: field "obj_id" is missing'),
        (lambda videos: videos[TRAIN]['expressions']['1'].pop('anno_id'), 'expression 1: field "anno_id" is missing'),
        (lambda videos: videos[TRAIN].pop('frames'), 'field "frames" is missing'),
        (lambda videos: videos[TRAIN].pop('expressions'), 'field "expressions" is missing'),
        (lambda videos: videos[TRAIN].update(expressions={}), 'field "expressions" is empty'),
        (lambda videos: videos[TRAIN].update(frames=[]), '"frames" must be a list of frame names, is empty'),
        (lambda videos: videos[TRAIN].update(frames=['00000'] * 4), '"frames" names a frame twice'),
        (lambda videos: videos[TRAIN].update(frames=['00000', '../1']), 'must be one name, not a path'),
        (lambda videos: videos[TRAIN]['frames'].pop(), r'key "3", video 0a1b2c3d4e5f: has 4 masks for 3 frames'),
        (change(exp='  '), 'field "exp" is an empty sentence'),
        (change(exp=3), 'field "exp" has the type int'),
        (change(obj_id='1'), 'field "obj_id" has the type str, must be list'),
        (change(obj_id=[1, -1]), 'field "obj_id" must be a list of whole numbers, is .1, -1.'),
        (change(anno_id=[True, 3]), 'field "anno_id" must be a list of whole numbers'),
        (change(anno_id=[7]), 'field "anno_id" has 1 numbers, "obj_id" 2'),
        (change(obj_id=[]), 'field "anno_id" has 2 numbers, "obj_id" 0'),
        (change(anno_id=[7, 99]), 'mask_dict.json: has no key "99", the anno_id of an object'),
        (lambda videos: videos.clear(), 'field "videos" is empty'),
        (lambda videos: videos.update(zzz=videos[TRAIN]), 'JPEGImages/zzz: missing folder with frames'),
        (lambda videos: videos.update({'a/b': videos[TRAIN]}), 'the name of a video'),
    ],
)
def test_wrong_sentences(raw, edit, message):
    raw_tree.edit_json(raw / 'train' / raw_mevis.EXPRESSIONS, edit)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        built(raw, 'train')
    assert not list((raw.parent / 'tfds').rglob('*.json'))  # Nothing half-written is left.


def edit_masks(raw, edit):
    file = raw / 'train' / 'mask_dict.json'
    masks = json.loads(file.read_text())
    edit(masks)
    file.write_text(json.dumps(masks))


@pytest.mark.parametrize(
    'edit, message',
    [
        (lambda masks: masks.pop('7'), 'has no key "7"'),
        (lambda masks: masks['7'].pop(), 'key "7", video 0a1b2c3d4e5f: has 3 masks for 4 frames'),
        (lambda masks: masks.update({'7': [1, 2, 3, 4]}), 'frame 00000: a mask must be run lengths or null, is 1'),
        (lambda masks: masks['7'][0].pop('counts'), r'frame 00000: run lengths must have "size" .54, 96.'),
        (lambda masks: masks['7'][0].update(size=[96, 54]), 'frame 00000: run lengths must have'),
        (lambda masks: masks['7'][0].update(size=['54', 96]), 'frame 00000: run lengths must have'),
        (lambda masks: masks['7'][0].update(counts='0'), 'frame 00000: run lengths must have'),
        (lambda masks: masks['7'][0].update(counts=masks['7'][0]['counts'][:-1]), 'frame 00000: run lengths must have'),
        (lambda masks: masks['7'][0].update(counts='~~~'), 'frame 00000: run lengths must have'),
        (lambda masks: masks['7'][0].update(counts=masks['7'][0]['counts'] * 9), 'frame 00000: run lengths must have'),
        (lambda masks: masks.update({'7': {}}), "'{' in place of"),
        (lambda masks: masks.update({'7': None}), "'n' in place of"),
    ],
)
def test_wrong_masks(raw, edit, message):
    edit_masks(raw, edit)
    with pytest.raises(ValueError, match=f'mask_dict.json: .*{message}'):
        built(raw, 'train')
    assert not list((raw.parent / 'tfds').rglob('*.json'))


FRAME = '00002.jpg'


def cut_frame(folder):
    (folder / FRAME).write_bytes((folder / FRAME).read_bytes()[:-200])


def small_frame(folder):
    Image.open(folder / FRAME).resize((40, 20)).save(folder / FRAME)


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize(
    'spoil, message',
    [
        (cut_frame, f'{FRAME}: broken JPEG'),
        (small_frame, f'{FRAME}: is 40x20 pixels, but'),
        (lambda folder: (folder / FRAME).unlink(), f'{FRAME}: missing, though listed in'),
        (lambda folder: (folder / FRAME).write_bytes(b''), f'{FRAME}: broken JPEG'),
    ],
)
def test_wrong_frames(raw, spoil, message, packed):
    spoil(raw / 'train' / 'JPEGImages' / TRAIN)
    if packed:
        raw_mevis.pack(raw, 'train')
    with pytest.raises((ValueError, FileNotFoundError), match=f'{TRAIN}/{message}'):
        built(raw, 'train')
    source = built(raw, 'train', skip_bad_videos=True)
    assert [video.name for video in source.videos] == [SECOND]


def test_wrong_archives(raw):
    raw_mevis.pack(raw, 'train')
    file = raw / 'train' / 'JPEGImages.tar'
    data = file.read_bytes()
    for wrong in (b'', b'garbage' * 300, gzip.compress(data)):
        file.write_bytes(wrong)
        with pytest.raises(ValueError, match='JPEGImages.tar: is no readable tar without compression'):
            built(raw, 'train')
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises((ValueError, FileNotFoundError), match='JPEGImages.tar'):
        built(raw, 'train')


def test_links_in_archives_are_not_followed(raw):
    raw_mevis.pack(raw, 'train')
    with tarfile.open(raw / 'train' / 'JPEGImages.tar', 'a') as archive:
        link = tarfile.TarInfo(f'JPEGImages/{SECOND}/00010.jpg')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        archive.addfile(link)
    raw_tree.edit_json(raw / 'train' / raw_mevis.EXPRESSIONS, lambda videos: videos[SECOND]['frames'].append('00010'))
    with pytest.raises(FileNotFoundError, match='00010.jpg: missing'):
        built(raw, 'train')


def test_more_objects_than_a_map_has_values(monkeypatch):
    monkeypatch.setattr(metadata, 'VOID', 4)
    codes = [raw_mevis.encode(np.eye(8, dtype=bool) * (np.arange(8) == number)) for number in range(8)]
    codes = [code | {'counts': code['counts'].encode()} for code in codes]
    assert mevis.separate({n: [code] for n, code in enumerate(codes, 1)}) == [[1, 2, 3], [4, 5, 6], [7, 8]]
    assert mevis.separate({1: [codes[0]], 2: [codes[0]], 3: [None], 4: [codes[1]]}) == [[1, 3, 4], [2]]


# The index of mask_dict.json.


@pytest.mark.parametrize('piece', [3, 7, 64, 2**22])
@pytest.mark.parametrize('form', [{}, {'indent': 3}, {'separators': (',', ':')}])
def test_the_index_finds_what_json_reads(tmp_path, monkeypatch, piece, form):
    monkeypatch.setattr(mask_dict, 'PIECE', piece)
    content = {
        '3': [None, {'size': [2, 3], 'counts': 'a[]{}\\"\u00e9'}],
        '1': [],
        '20': [{'size': [2, 3], 'counts': ']' * 200}],
    }
    for prefix in (b'', b'\xef\xbb\xbf', b' \n\t'):
        file = tmp_path / 'mask_dict.json'
        file.write_bytes(prefix + json.dumps(content, **form).encode() + b'\r\n')
        index = mask_dict.read_index(file)
        assert list(index.places) == list(content)
        assert {key: mask_dict.read_entry(index, int(key)) for key in content} == content
    file.write_text('{}')
    assert not mask_dict.read_index(file).places


@pytest.mark.parametrize(
    'text, reason',
    [
        ('', 'it ends too early'),
        ('{', 'it ends too early'),
        ('{"1": [', 'near byte 6'),
        ('{"1": [null]', 'it ends too early'),
        ('{"1": [null],}', "'}' in place of"),
        ('{"1" [null]}', "'\\[' in place of :"),
        ('{"1": [null] "2": []}', 'in place of , or }'),
        ('{"1": [nul]}', 'near byte 6'),
        ('{"1": [NaN]}', 'NaN is no number'),
        ('{"1": ' + '[' * 100_000, 'too many levels'),
        ('{1: []}', "'1' in place of"),
        ('[]', "'\\[' in place of {"),
        ('\ufeff{"1": []'.encode('utf-16').decode('latin-1'), 'in place of {'),
    ],
)
def test_a_damaged_mask_dict(tmp_path, text, reason):
    file = tmp_path / 'mask_dict.json'
    file.write_bytes(text.encode('latin-1'))
    with pytest.raises(ValueError, match=f'mask_dict.json: is not JSON with a list of masks per anno_id .*{reason}'):
        mask_dict.read_index(file)


def test_bounds_of_a_mask_dict(tmp_path, monkeypatch):
    file = tmp_path / 'mask_dict.json'
    file.write_text('{"1": [], "1": []}')
    with pytest.raises(ValueError, match="the key '1' is there twice"):
        mask_dict.read_index(file)
    file.write_text('{"1": [], "2": []}')
    monkeypatch.setattr(mask_dict, 'MOST_ENTRIES', 1)
    with pytest.raises(ValueError, match='more than 1 objects'):
        mask_dict.read_index(file)
    monkeypatch.setattr(mask_dict, 'LARGEST_ENTRY', 1000)
    monkeypatch.setattr(mask_dict, 'PIECE', 100)
    file.write_text('{"1": [' + 'null,' * 10_000 + 'null]}')
    with pytest.raises(ValueError, match='near byte 6'):
        mask_dict.read_index(file)


# What is stored.


def entry(**changes):
    return {
        'video': 'a',
        'frame_names': ['0', '1'],
        'height': 54,
        'width': 96,
        'has_masks': True,
        'mask_layers': [[1, 3], [2]],
        'expressions': [{'id': '0', 'text': 'a cat', 'object_id': 0, 'object_ids': '1 2', 'tags': ''}],
    } | changes


def expression(**changes):
    return {'expressions': [entry()['expressions'][0] | changes]}


def test_stored_layers():
    video = metadata.read_video(entry(), 'x')
    assert video.num_masks == 4 and video.expressions[0].objects == (1, 2)
    assert metadata.read_video(entry(**expression(object_ids='')), 'x').expressions[0].objects == ()


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'mask_layers': [[1, 1], [2]]}, '"mask_layers" must be lists'),
        ({'mask_layers': [[1, 2], [2]]}, '"mask_layers" must be lists'),
        ({'mask_layers': [[1, 0], [2]]}, '"mask_layers" must be lists'),
        ({'mask_layers': [[1, True], [2]]}, '"mask_layers" must be lists'),
        ({'mask_layers': [[]]}, '"mask_layers" must be lists'),
        ({'mask_layers': [list(range(1, 256))]}, '"mask_layers" must be lists'),
        ({'mask_layers': 3}, '"mask_layers" must be lists'),
        ({'mask_layers': [3]}, '"mask_layers" must be lists'),
        ({'has_masks': False}, '"mask_layers" needs "has_masks"'),
        ({'mask_places': [[0, 1]]}, 'no "mask_places"'),
        (expression(object_ids='1 4'), '"object_ids" must be different ids'),
        (expression(object_ids='1 1'), '"object_ids" must be different ids'),
        (expression(object_ids=[1]), 'field "object_ids" is missing or of the wrong type'),
        (expression(text=' '), 'is an empty sentence'),
        (expression(id='../x'), 'must be one name'),
    ],
)
def test_wrong_stored_layers(changes, message):
    with pytest.raises(ValueError, match=f'^x.*{message}'):
        metadata.read_video(entry(**changes), 'x')
