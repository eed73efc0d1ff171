"""RefCOCO from the release and as converted; pickles as Python 2 wrote them, and hostile ones."""

import io
import json
import os
import pickle

import numpy as np
from PIL import Image
import pytest

from datasets import build
from sgmg_jax import plain_pickle
from sgmg_jax.data import metadata, records
from sgmg_jax.raw import refcoco as refcoco_raw

SETS = {
    'refcoco': ('refcoco', 'refs(unc).p', 'testA'),
    'refcoco_plus': ('refcoco+', 'refs(unc).p', 'testB'),
    'refcocog': ('refcocog', 'refs(umd).p', 'test'),
}
SIZES = {7: (47, 61), 8: (20, 33), 9: (33, 20)}  # Height and width of a picture; 9 is grey and has a turning EXIF tag.


def file_name(image_id):
    return f'COCO_train2014_{image_id:012d}.jpg'


def rectangle(top, left, bottom, right):
    return [left, top, right, top, right, bottom, left, bottom]


def runs(mask):
    """COCO's uncompressed run-length encoding, written naively."""
    counts, value = [0], 0
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            if mask[y, x] != value:
                counts.append(0)
                value = 1 - value
            counts[-1] += 1
    return {'size': list(mask.shape), 'counts': counts}


def expected_masks():
    masks = {number: np.zeros(SIZES[image_id], np.uint8) for number, image_id in IMAGE_OF.items()}
    masks[71][5:20, 3:30] = 1
    masks[71][10:40, 25:50] = 1  # A second polygon, over the first.
    masks[72][0:47, 50:61] = 1  # To the edges; overlaps no other, but 73 does.
    masks[73][30:45, 10:60] = 1
    masks[81][::2, 4:9] = 1
    masks[91][2:33, 1:19] = 1
    return masks


IMAGE_OF = {71: 7, 72: 7, 73: 7, 81: 8, 91: 9}
MASKS = expected_masks()
SEGMENTATIONS = {
    71: [rectangle(5, 3, 20, 30), rectangle(10, 25, 40, 50)],
    81: runs(MASKS[81]),
    72: [[1.0, 1.0, 9.0, 9.0], rectangle(0.0, 50, 47, 61.0)],  # Two points, which enclose nothing.
    73: [rectangle(30, 10, 45, 60)],
    91: [rectangle(2, 1, 33, 19)],
}
# Object, split, sentences; not in the order of the pictures.
REFS = [
    (81, 'train', ['many small things']),
    (72, 'train', ['the right edge', 'caf\xe9 "wall"']),
    (91, 'val', ['grey']),
    (73, 'train', ["it's below"]),
    (72, 'train', ['again the edge']),
    (71, 'val', ['left']),
    (91, 'LAST', ['turned', 'upright']),
    (71, 'train', ['two boxes']),
    (71, 'testAB', ['somewhere']),
]


def refs(last):
    return [
        {
            'sent_ids': [0],
            'file_name': f'{file_name(IMAGE_OF[number])[:-4]}_{number}.jpg',
            'ann_id': number,
            'ref_id': position,
            'image_id': IMAGE_OF[number],
            'category_id': 1,
            'split': last if split == 'LAST' else split,
            'sentences': [
                {'tokens': sentence.split(), 'raw': sentence.upper(), 'sent_id': 0, 'sent': sentence}
                for sentence in sentences
            ],
        }
        for position, (number, split, sentences) in enumerate(REFS)
    ]


def instances():
    return {
        'info': {},
        'licenses': [],
        'categories': [{'id': 1, 'name': 'thing', 'supercategory': 'thing'}],
        'images': [
            {'license': 1, 'file_name': file_name(number), 'height': height, 'width': width, 'id': number}
            for number, (height, width) in SIZES.items()
        ],
        'annotations': [
            {
                'segmentation': SEGMENTATIONS[number],
                'area': 1.5,
                'iscrowd': int(number == 81),
                'image_id': image_id,
                'bbox': [0, 0, 1, 1],
                'category_id': 1,
                'id': number,
            }
            for number, image_id in IMAGE_OF.items()
        ],
    }


def converted(wanted):
    """A split as the released converters write it, given the names of its 'split' fields."""
    images, annotations = [], []
    for number, split, sentences in REFS:
        for sentence in sentences if split in wanted else ():
            running, image_id = len(images) + 1, IMAGE_OF[number]
            images.append(
                {
                    'file_name': file_name(image_id),
                    'height': SIZES[image_id][0],
                    'width': SIZES[image_id][1],
                    'original_id': image_id,
                    'id': running,
                    'caption': sentence,
                    'dataset_name': 'refcoco',
                }
            )
            annotations.append(
                {
                    'segmentation': SEGMENTATIONS[number],
                    'area': 1.5,
                    'iscrowd': int(number == 81),
                    'bbox': [0, 0, 1, 1],
                    'image_id': running,
                    'category_id': 1,
                    'id': running,
                    'original_id': number,
                }
            )
    return {'info': {}, 'licenses': [], 'images': images, 'annotations': annotations, 'categories': []}


def python2(value, memo):
    """Protocol 0 as Python 2 writes it: byte strings, everything memoised, repeated strings from the memo."""
    if isinstance(value, int):
        return b'I%d\n' % value
    if isinstance(value, str) and value in memo:
        return b'g%d\n' % memo[value]
    put = b'p%d\n' % len(memo)
    memo[value if isinstance(value, str) else len(memo)] = len(memo)
    if isinstance(value, str):
        return b'S' + repr(value.encode('latin1'))[1:].encode() + b'\n' + put
    if isinstance(value, list):
        return b'(l' + put + b''.join(python2(item, memo) + b'a' for item in value)
    return b'(d' + put + b''.join(python2(key, memo) + python2(item, memo) + b's' for key, item in value.items())


def write_pictures(folder):
    folder.mkdir(parents=True)
    for number, (height, width) in SIZES.items():
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        if number == 9:
            exif = Image.Exif()
            exif[0x0112] = 6
            Image.fromarray(pixels[..., 0]).save(folder / file_name(number), exif=exif)
        else:
            Image.fromarray(pixels).save(folder / file_name(number))


@pytest.fixture
def raw(tmp_path):
    """The release, of all three sets."""
    write_pictures(tmp_path / 'raw' / 'train2014')
    for folder, refs_name, last in SETS.values():
        (tmp_path / 'raw' / folder).mkdir()
        (tmp_path / 'raw' / folder / refs_name).write_bytes(python2(refs(last), {}) + b'.')
        (tmp_path / 'raw' / folder / 'instances.json').write_text(json.dumps(instances()))
    return tmp_path / 'raw'


def convert(raw, name):
    """Replaces the release's files of a data set by converted ones."""
    folder, refs_name, last = SETS[name]
    (raw / folder / refs_name).unlink()
    (raw / folder / 'instances.json').unlink()
    splits = {'train': ['train'], 'val': ['val']} | (
        {'test': ['LAST', 'testAB']}
        if last == 'test'
        else {split: ['testAB'] + ['LAST'] * (last == split) for split in ('testA', 'testB')}
    )
    for split, wanted in splits.items():
        (raw / folder / f'instances_{folder}_{split}.json').write_text(json.dumps(converted(wanted)))


def read(raw, name='refcoco'):
    return refcoco_raw.read_splits(raw, SETS[name][0], SETS[name][1], ('train', 'val', 'testA', 'testB'))


def test_a_record_is_a_picture(raw):
    folder = build.build('refcoco', raw, raw.parent / 'tfds')
    train = records.open_records(folder, 'train')
    assert [video.name for video in train.videos] == ['COCO_train2014_000000000008', 'COCO_train2014_000000000007']
    crowd, several = train.videos
    assert crowd.expressions == (metadata.Expression('1', 'many small things', 1, ('crowd',)),)
    assert [(e.id, e.text, e.object_id, e.tags) for e in several.expressions] == [
        ('2', 'the right edge', 1, ()),
        ('3', 'caf\xe9 "wall"', 1, ()),
        ('4', "it's below", 2, ()),
        ('5', 'again the edge', 1, ()),
        ('6', 'two boxes', 3, ()),
    ]
    assert several.frame_names == ('0',) and (several.height, several.width) == SIZES[7] and several.has_masks
    assert several.mask_places == ((0, 1), (0, 2), (0, 3)) and several.annotated_frames(3) == [0]
    record = train[1]
    assert record.frames == ((raw / 'train2014' / file_name(7)).read_bytes(),)
    assert record.decode_frames().shape == (1, 47, 61, 3)
    for place, number in enumerate((72, 73, 71)):
        np.testing.assert_array_equal(record.decode_object(place + 1, 0), MASKS[number] == 1)
        np.testing.assert_array_equal(Image.open(io.BytesIO(record.masks[place])), MASKS[number])
    np.testing.assert_array_equal(train[0].decode_object(1, 0), MASKS[81] == 1)

    test = records.open_records(folder, 'testA')
    assert [[(e.id, e.text) for e in video.expressions] for video in test.videos] == [
        [('1', 'turned'), ('2', 'upright')],
        [('3', 'somewhere')],
    ]
    assert test[0].decode_frames().shape == (1, 33, 20, 3)  # Grey, and not turned.
    assert [video.expressions for video in records.open_records(folder, 'testB').videos] == [
        (metadata.Expression('1', 'somewhere', 1, ()),)
    ]


@pytest.mark.parametrize('name', SETS)
def test_release_and_converted_files_give_the_same(name, raw):
    first = build.build(name, raw, raw.parent / 'release')
    convert(raw, name)
    (raw / 'images').mkdir()
    (raw / 'train2014').rename(raw / 'images' / 'train2014')
    second = build.build(name, raw, raw.parent / 'converted')
    sizes = {'train': 2, 'val': 2} | (
        {'test': 2} if name == 'refcocog' else {'testA': 1, 'testB': 1} | {SETS[name][2]: 2}
    )
    for split, size in sizes.items():
        ours, theirs = records.open_records(first, split), records.open_records(second, split)
        assert len(ours) == size and ours.videos == theirs.videos
        assert list(ours) == list(theirs)
    with pytest.raises(ValueError, match='no split'):
        records.open_records(first, 'testA' if name == 'refcocog' else 'test')


@pytest.mark.parametrize('protocol', [0, 1, 2])
def test_every_protocol_of_python_2(protocol, raw):
    of_python2 = read(raw)
    (raw / 'refcoco' / 'refs(unc).p').write_bytes(pickle.dumps(refs('testA'), protocol))
    assert read(raw) == of_python2


class Attack:
    def __reduce__(self):
        return os.system, ('touch ran',)


@pytest.mark.parametrize(
    'program',
    [
        *(pickle.dumps([Attack()], protocol) for protocol in range(6)),
        b"cos\nsystem\n(S'touch ran'\ntR.",
        b"(S'touch ran'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch ran'\no.",
        b'\x82\x01.',
        b'Pos\n.',
        b'K\x01Q.',
        pickle.dumps(refs('testA'), 4),
        b'](K\x01K\x02te.',
        b'}b.',
        b'(]R.',
        b'\x80\x02\x81.',
    ],
)
def test_pickles_of_more_than_data_are_refused(program, raw, monkeypatch):
    monkeypatch.chdir(raw)
    (raw / 'refcoco' / 'refs(unc).p').write_bytes(program)
    with pytest.raises(ValueError, match=r'refcoco.refs\(unc\).p: is no pickle .* asks for more than') as caught:
        read(raw)
    assert 'Nothing was run' in str(caught.value) and not (raw / 'ran').exists()


@pytest.mark.parametrize(
    'program',
    [
        b'',
        b'(l',
        b'.',
        b'a.',
        b'e.',
        b'h\x01.',
        b'g1\n.',
        b'Ix\n.',
        b"S'\n.",
        b'T\xff\xff\xff\x7fa.',
        b'K',
        b'}K\x01a.',
        b'}]K\x01s.',
        b']K\x01K\x02s.',
        b'}(K\x01u.',
        b'X\x01\x00\x00\x00\xff.',
        b'p1\n.',
    ],
)
def test_damaged_pickles(program, raw):
    (raw / 'refcoco' / 'refs(unc).p').write_bytes(program)
    with pytest.raises(ValueError, match=r'refcoco.refs\(unc\).p: is no pickle of plain data, or damaged'):
        read(raw)


def test_lists_that_share_parts_are_not_printed_in_full(raw):
    shared = b'(]q\x01' + b'(h\x01h\x01lq\x01' * 60 + b'l'  # 2 ** 60 lists, if each is counted where it is named.
    (raw / 'refcoco' / 'refs(unc).p').write_bytes(shared + b"(l(dS'split'\nh\x01sa.")
    with pytest.raises(ValueError, match='entry 0: field "split" is missing or of the wrong type'):
        read(raw)


@pytest.mark.parametrize(
    'name, module, limit', [('refs(unc).p', plain_pickle, 'LARGEST'), ('instances.json', refcoco_raw, 'LARGEST_JSON')]
)
def test_large_files_are_refused(name, module, limit, raw, monkeypatch):
    monkeypatch.setattr(module, limit, 100)
    with pytest.raises(ValueError, match='has .* bytes, at most 100 are read') as caught:
        read(raw)
    assert str(raw / 'refcoco' / name) in str(caught.value)


def edit_refs(**fields):
    def edit(raw):
        content = refs('testA')
        content[1].update(fields)
        (raw / 'refcoco' / 'refs(unc).p').write_bytes(pickle.dumps(content, 2))

    return edit


def edit_instances(table, position, **fields):
    def edit(raw):
        content = instances()
        content[table][position].update(fields)
        (raw / 'refcoco' / 'instances.json').write_text(json.dumps(content))

    return edit


def empty_annotations(raw):
    convert(raw, 'refcoco')
    file = raw / 'refcoco' / 'instances_refcoco_val.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | {'annotations': []}))


def lone_image(raw):
    convert(raw, 'refcoco')
    file = raw / 'refcoco' / 'instances_refcoco_val.json'
    content = json.loads(file.read_text())
    content['annotations'].pop()
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    'spoil, message',
    [
        (edit_refs(split=3), r'refs\(unc\).p: entry 1: field "split" .* is 3'),
        (edit_refs(ann_id=4), r'entry 1: .*instances.json has no image_id 7 with the ann_id 4'),
        (edit_refs(ann_id=81), r'entry 1: .*instances.json has no image_id 7 with the ann_id 81'),
        (edit_refs(sentences=[{'raw': 'x'}]), 'entry 1: field "sent" is missing or of the wrong type, is None'),
        (edit_instances('images', 1, id=7), 'instances.json: field "images" is empty or has a "id" twice'),
        (edit_instances('images', 0, file_name='../secret.jpg'), 'image 7: field "file_name" must be one name'),
        (edit_instances('images', 0, height='47'), 'instances.json: image 7: field "height" .* is \'47\''),
        (edit_instances('annotations', 0, iscrowd=None), 'image 7, object 71: field "iscrowd"'),
        (edit_instances('annotations', 0, segmentation='x'), 'image 7, object 71: field "segmentation"'),
        (lambda raw: (raw / 'refcoco' / 'instances.json').write_text('{'), 'instances.json: is not JSON'),
        (lambda raw: (raw / 'refcoco' / 'instances.json').write_text('[' * 10**5), 'is JSON of too many levels'),
        (lambda raw: (raw / 'refcoco' / 'refs(unc).p').write_bytes(b'}.'), r'refs\(unc\).p: holds a dict, not a list'),
        (
            lambda raw: (raw / 'refcoco' / 'refs(unc).p').write_bytes(b'].'),
            'none of its 0 entries has a "split" of train',
        ),
        (empty_annotations, 'instances_refcoco_val.json: field "annotations" is empty'),
        (lone_image, 'instances_refcoco_val.json: image 2: no annotation has this image_id'),
    ],
)
def test_wrong_fields(spoil, message, raw):
    spoil(raw)
    with pytest.raises(ValueError, match=message):
        read(raw)


@pytest.mark.parametrize(
    'segmentation',
    [
        [[1, 2, 3]],
        [[1, 2, 3, 4, 5, float('nan')]],
        [[1, 2, 3, 4, 5, 1e9]],
        [[1, 2, 3, 4, 5, '6']],
        [3],
        [[[1] * 6]],
        {'size': [47, 61], 'counts': [1, 2]},
        {'size': [61, 47], 'counts': [47 * 61]},
        {'counts': [47 * 61]},
        {'size': [47, 61], 'counts': [-1, 47 * 61 + 1]},
        {'size': [47, 61], 'counts': 'PP1'},
        {'size': [47, 61]},
    ],
)
def test_wrong_segmentations(segmentation):
    picture = refcoco_raw.Picture('x.jpg', 47, 61, (), (segmentation,), 'file: image 7')
    with pytest.raises(ValueError, match='file: image 7: (a|run lengths)'):
        refcoco_raw.render(picture, 1)


@pytest.mark.parametrize('seed', range(5))
def test_random_run_lengths(seed):
    rng = np.random.default_rng(seed)
    mask = (rng.random((rng.integers(1, 9), rng.integers(1, 9))) < 0.5).astype(np.uint8)
    picture = refcoco_raw.Picture('x.jpg', *mask.shape, (), (runs(mask),), 'file: image 7')
    drawn = refcoco_raw.render(picture, 1)
    np.testing.assert_array_equal(drawn, mask)
    assert drawn.dtype == np.uint8


@pytest.mark.parametrize(
    'segmentation', [[], [[1, 2, 3, 4]], [[100, 100, 110, 100, 110, 110]], {'size': [47, 61], 'counts': [47 * 61]}]
)
def test_an_object_without_pixels_is_kept(segmentation, caplog):
    picture = refcoco_raw.Picture('x.jpg', 47, 61, (), (segmentation,), 'file: image 7')
    mask = refcoco_raw.render(picture, 1)
    assert mask.shape == (47, 61) and not mask.any()
    assert 'file: image 7: object 1 covers no pixel' in caplog.text


def test_an_empty_folder_names_every_path_tried(raw):
    convert(raw, 'refcoco')
    for file in (raw / 'refcoco').iterdir():
        file.unlink()
    files = r'refs\(unc\).p and .*instances.json, or .*instances_refcoco_testB.json'
    with pytest.raises(FileNotFoundError, match=files):
        read(raw)
    (raw / 'train2014').rename(raw / 'val2014')
    with pytest.raises(FileNotFoundError, match='train2014 or .*images.train2014: missing folder'):
        build.build('refcoco', raw, raw.parent / 'tfds')


def missing(file):
    file.unlink()


def scaled(file):
    Image.open(file).resize((30, 24)).save(file)


def truncated(file):
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    'spoil, message',
    [
        (missing, '000000000007.jpg: missing, though .*instances.json: image 7 needs it'),
        (scaled, '000000000007.jpg: is 30x24 pixels, but "width" and "height" of .*image 7 are 61 and 47'),
        (truncated, '000000000007.jpg: broken JPEG'),
    ],
)
def test_bad_pictures(spoil, message, raw):
    spoil(raw / 'train2014' / file_name(7))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build.build('refcocog', raw, raw.parent / 'tfds')
    folder = build.build('refcocog', raw, raw.parent / 'tfds', skip_bad_videos=True)
    assert [record.video.name[-1] for record in records.open_records(folder, 'train')] == ['8']


def blank(number):
    def edit(raw):
        content = refs('testA')
        content[number]['sentences'][0]['sent'] = ' \n'
        (raw / 'refcoco' / 'refs(unc).p').write_bytes(pickle.dumps(content, 2))

    return edit


def test_blank_sentences_are_left_out_and_counted(raw, caplog):
    blank(1)(raw)
    folder = build.build('refcoco', raw, raw.parent / 'tfds')
    crowd, several = records.open_records(folder, 'train')
    # The others keep their numbers; 72 is still the first of the picture's objects, by its second sentence.
    assert [(e.id, e.object_id) for e in several.video.expressions] == [('3', 1), ('4', 2), ('5', 1), ('6', 3)]
    assert 'left out 1 empty sentences of train, numbers [2].' in caplog.text


def test_a_picture_and_a_split_of_only_blank_sentences(raw):
    blank(0)(raw)
    assert [picture.name[-1] for picture in read(raw)['train']] == ['7']
    content = refs('testA')
    for ref in content:
        if ref['split'] == 'val':
            ref['sentences'] = [{'sent': ''}]
    (raw / 'refcoco' / 'refs(unc).p').write_bytes(pickle.dumps(content, 2))
    with pytest.raises(ValueError, match="instances.json: has no sentence of the split 'val'"):
        read(raw)


@pytest.mark.parametrize(
    'spoil, message',
    [
        (edit_instances('images', 0, height=True), 'image 7: field "height" is missing or of the wrong type, is True'),
        (edit_instances('images', 0, height=10**9), 'image 7: "height" and "width" must be whole numbers from 1'),
        (edit_instances('images', 0, width=-61), 'image 7: "height" and "width" must be whole numbers from 1'),
        (edit_instances('images', 0, width=0), 'image 7: "height" and "width" must be whole numbers from 1'),
        (edit_instances('images', 0, file_name='\x1b[2J.jpg'), 'image 7: field "file_name" must have printable'),
        (edit_instances('images', 0, id=7.0), 'images 0: field "id" is missing or of the wrong type'),
        (edit_instances('annotations', 0, iscrowd=True), 'image 7, object 71: field "iscrowd"'),
        (edit_refs(sentences=[{'sent': '\udc80'}]), 'image 7: sentence 2 must have at most'),
        (edit_refs(ann_id=[72]), 'entry 1: field "ann_id" is missing or of the wrong type'),
        (edit_refs(sentences=[[]]), 'entry 1: field "sent" is missing'),
    ],
)
def test_hostile_fields(spoil, message, raw):
    spoil(raw)
    with pytest.raises(ValueError, match=message) as caught:
        read(raw)
    assert str(raw) in str(caught.value)


def test_two_pictures_with_the_same_file(raw):
    edit_instances('images', 1, file_name=file_name(7), height=47, width=61)(raw)
    content = json.loads((raw / 'refcoco' / 'instances.json').read_text())
    content['annotations'][3].update(segmentation=[rectangle(1, 1, 9, 9)])  # That of the other had another size.
    (raw / 'refcoco' / 'instances.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match="split 'train' has the picture COCO_train2014_000000000007 twice"):
        build.build('refcoco', raw, raw.parent / 'tfds')


def test_shared_sentences_count_for_each_reference(raw, monkeypatch):
    """A reference takes a few bytes, but all of its sentences count."""
    monkeypatch.setattr(refcoco_raw, 'MOST_SENTENCES', 1000)
    ref = {**refs('testA')[0], 'sentences': [{'sent': 'a'}] * 50}
    (raw / 'refcoco' / 'refs(unc).p').write_bytes(pickle.dumps([ref] * 21, 2))
    with pytest.raises(ValueError, match=r"refs\(unc\).p: entry 20: the split 'train' has more than 1,000 sentences"):
        read(raw)


@pytest.mark.parametrize(
    'program',
    [
        pickle.dumps({2**61 - 1: 1}, 2),
        pickle.dumps({k * (2**61 - 1): k for k in range(1, 5)}, 0),
        b'}G' + bytes(8) + b'K\x01s.',
        b'(F1.5\nI1\nd.',
        b'}(]K\x01u.',
        b'}NK\x01s.',
        b'(I01\nI1\nd.',
        b'L' + b'9' * 50 + b'L\n.',
        b'I0x' + b'f' * 5000 + b'\n.',
    ],
)
def test_colliding_keys_and_huge_numbers_are_refused(program, raw):
    (raw / 'refcoco' / 'refs(unc).p').write_bytes(program)
    with pytest.raises(ValueError, match=r'refs\(unc\).p: is no pickle of plain data'):
        plain_pickle.read(raw / 'refcoco' / 'refs(unc).p')


def test_plain_keys_and_numbers(raw):
    content = {'a': [1, -(2**31), 2.5, True, None, 'caf\xe9'], 5: {'b': {}}, -(2**59): []}
    for protocol in range(3):
        (raw / 'x').write_bytes(pickle.dumps(content, protocol))
        assert plain_pickle.read(raw / 'x') == content


def test_the_number_of_containers_is_bounded(raw, monkeypatch):
    monkeypatch.setattr(plain_pickle, 'MOST_CONTAINERS', 100)
    for program in (b']' * 101, b'}' * 101, b'(' * 101, b'(l' * 51, b'(d' * 51):
        (raw / 'x').write_bytes(program + b'.')
        with pytest.raises(ValueError, match='has more than 100 lists and dictionaries'):
            plain_pickle.read(raw / 'x')


def test_only_instructions_of_plain_data_are_known(raw):
    """Pinned: whoever adds an instruction must know that nothing can be called by it."""
    known = set()
    for code in map(bytes, zip(range(256))):
        (raw / 'x').write_bytes(code)
        try:
            plain_pickle.read(raw / 'x')
        except ValueError as error:
            known |= set() if 'asks for more than' in str(error) else {code}
    assert known == set(map(bytes, zip(b'(.IJKMLFGSTUVX]la}d\x80N\x88\x89\x8aepqrghjsu')))


def test_other_endings_and_junk_files(raw):
    before = build.build('refcoco', raw, raw.parent / 'before')
    folder = raw / 'train2014'
    for file in list(folder.iterdir()):
        file.rename(file.with_suffix('.JPEG'))
        (folder / f'._{file.name}').write_bytes(b'\x00\x05')
    (raw / 'refcoco' / '.DS_Store').write_bytes(b'\x00')
    instances_file = raw / 'refcoco' / 'instances.json'
    instances_file.write_bytes(b'\xef\xbb\xbf' + instances_file.read_bytes())
    after = build.build('refcoco', raw, raw.parent / 'after')
    assert list(records.open_records(after, 'train')) == list(records.open_records(before, 'train'))
