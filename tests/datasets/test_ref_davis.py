"""Ref-DAVIS17 as downloaded, with its quirks, compared with the converted layout."""

import shutil

import numpy as np
import pytest
import raw_davis
import raw_tree

from datasets import build
from sgmg_jax.data import records
from sgmg_jax.raw import davis as davis_raw


@pytest.fixture
def raw(tmp_path):
    return raw_davis.write(tmp_path / 'raw')


def convert(raw, target):
    """The converted layout, as the released script makes it."""
    for split, folder in (('train', 'train'), ('val', 'valid')):
        for video in raw_davis.LISTS[split]:
            shutil.copytree(raw / 'DAVIS/JPEGImages/480p' / video, target / folder / 'JPEGImages' / video)
            shutil.copytree(
                raw / 'DAVIS/Annotations_unsupervised/480p' / video, target / folder / 'Annotations' / video
            )
        raw_tree.write_json(
            target / 'meta_expressions' / folder / 'meta_expressions.json',
            {
                video: {
                    'expressions': {
                        str(4 * (number - 1) + file): {
                            'exp': raw_davis.sentence(video, number, file),
                            'obj_id': str(number),
                        }
                        for number in range(1, raw_davis.OBJECTS[video] + 1)
                        for file in range(4)
                    },
                    'frames': raw_davis.FRAMES,
                }
                for video in raw_davis.LISTS[split]
            },
        )
    return target


def built(raw, split, **options):
    return records.open_records(build.build('ref_davis', raw, raw.parent / 'tfds', overwrite=True, **options), split)


def test_downloads_and_converted_layout_give_the_same(raw, tmp_path):
    folder = build.build('ref_davis', raw, tmp_path / 'ours')
    theirs = build.build('ref_davis', convert(raw, tmp_path / 'other'), tmp_path / 'theirs')
    for split in ('train', 'valid'):
        assert list(records.open_records(folder, split)) == list(records.open_records(theirs, split))
    dog, judo = records.open_records(folder, 'valid')
    assert (dog.video.name, judo.video.name) == ('dog', 'judo') and dog.video.frame_names == tuple(raw_davis.FRAMES)
    assert [(e.id, e.object_id) for e in judo.video.expressions] == [
        (str(number), 1 + number // 4) for number in range(8)
    ]
    assert judo.video.expressions[6].text == 'the judo 2, caf\xe9 "2"'
    masks = [raw_davis.davis_mask('judo', position) for position in range(5)]
    np.testing.assert_array_equal(judo.decode_masks(), masks)


def test_an_empty_folder_of_the_converted_layout_is_ignored(raw):
    (raw / 'meta_expressions' / 'valid').mkdir(parents=True)
    assert len(built(raw, 'valid')) == 2


def test_converted_sentences_come_first(raw):
    convert(raw, raw)
    raw_tree.edit_json(
        raw / 'meta_expressions/valid/meta_expressions.json',
        lambda videos: videos['dog']['expressions']['0'].update(exp='as converted'),
    )
    assert built(raw, 'valid').videos[0].expressions[0].text == 'as converted'


@pytest.mark.parametrize('old', ['paths', 'class'])
def test_lists_of_old_releases(old, raw):
    lists = raw / 'DAVIS' / 'ImageSets' / '2017'
    if old == 'class':
        lists.rename(lists.with_name('moved'))
        lists.mkdir()
        (lists.parent / 'moved').rename(lists / 'class')
    else:
        (lists / 'train.txt').unlink()
        (lists / 'val.txt').write_text(
            ''.join(
                f'/JPEGImages/480p/{video}/{frame}.jpg /Annotations/2017/{video}/{frame}.png \n'
                for video in raw_davis.LISTS['val']
                for frame in raw_davis.FRAMES
            )
        )
    found = {split.name: [video.name for video in videos] for split, videos in davis_raw.read_splits(raw)}
    assert found == {'valid': ['dog', 'judo']} | ({'train': ['classic-car']} if old == 'class' else {})


TEXTS = 'davis_text_annotations/Davis17_annot2.txt'
GAP = 'DAVIS/JPEGImages/480p/dog/00002.jpg'
UNMASKED = 'DAVIS/Annotations_unsupervised/480p/judo/00004.png'


def add_line(line):
    def edit(raw):
        (raw / TEXTS).write_text(line + '\n' + (raw / TEXTS).read_text('latin-1'), 'latin-1')

    return edit


def replace(old, new):
    def edit(raw):
        for file in (raw / TEXTS).parent.iterdir():
            file.write_bytes(file.read_bytes().replace(old, new))

    return edit


def remove(path):
    return lambda raw: shutil.rmtree(raw / path) if (raw / path).is_dir() else (raw / path).unlink()


@pytest.mark.parametrize(
    'spoil, message',
    [
        (add_line('dog one "the dog"'), 'Davis17_annot2.txt: line 1 is \'dog one "the dog"\'; it must be <video>'),
        (add_line('dog'), "Davis17_annot2.txt: line 1 is 'dog'"),
        (add_line('dog 255 "it"'), 'a whole number from 1 to 254'),
        (add_line('dog 2 " "'), 'Davis17_annot2.txt: line 1 is an empty sentence'),
        (add_line('judo 2 "again"'), 'Davis17_annot2.txt: line 3 is the second for video judo, object 2'),
        (
            lambda raw: (raw / 'davis_text_annotations/Davis17_annot1.txt').write_bytes(b'dog 1 "caf\xe9"'),
            'Davis17_annot1.txt: is not text in utf-8',
        ),
        (replace(b'dog 1', b'cat 1'), 'val.txt: video dog has no object with a sentence in each of Davis17_annot1.txt'),
        (
            replace(b'dog 1', b'dog 3'),
            'davis_text_annotations: video dog, expression 0: obj_id 3 is in no mask of .*dog, which hold the ids .1.',
        ),
        (remove(TEXTS), 'these do not exist: .*Davis17_annot2.txt. Unpack'),
        (remove('DAVIS/ImageSets'), 'these do not exist: .*ImageSets/2017/train.txt or val.txt'),
        (remove('DAVIS/JPEGImages/480p'), 'meta_expressions.* these do not exist: .*480p. Unpack'),
        (lambda raw: (raw / 'DAVIS/ImageSets/2017/val.txt').write_text('\n'), 'val.txt: must hold one video name'),
        (remove('DAVIS/JPEGImages/480p/dog'), 'missing folder with the frames of video dog'),
        (remove('DAVIS/Annotations_unsupervised/480p/dog'), 'missing folder with the masks of video dog'),
        (remove(GAP), 'dog.00002.jpg: missing, though listed in .* or named by a mask'),
        (remove(UNMASKED), 'judo.00004.png: missing; every frame needs a mask'),
    ],
)
def test_wrong_downloads(spoil, message, raw):
    spoil(raw)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        built(raw, 'valid')


def test_a_folder_without_frames(raw):
    for kind in ('JPEGImages', 'Annotations_unsupervised'):
        for file in (raw / 'DAVIS' / kind / '480p' / 'dog').iterdir():
            file.unlink()
    with pytest.raises(FileNotFoundError, match='480p.dog: holds no frames'):
        built(raw, 'valid')
    assert [video.name for video in built(raw, 'valid', skip_bad_videos=True).videos] == ['judo']


def test_oddities_that_only_warn(raw, caplog):
    add_line('dog 7 "in one file only"')(raw)
    replace(b'"0: judo 2"', b'an unquoted judoka ')(raw)
    (_, _), (_, videos) = davis_raw.read_splits(raw)
    assert [len(video.expressions) for video in videos] == [4, 8]
    assert videos[1].expressions[4].text == 'an unquoted judoka'
    assert "Video dog: left out the objects ['7']" in caplog.text
    assert 'Davis17_annot1.txt: the sentence of line 2 lacks its quotes: judo 2' in caplog.text
