"""The procedural world: every sentence checked against the pixels, and the layout on disk."""

import collections
import json
import os
import re
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from sgmg_jax import synthetic
from sgmg_jax.synthetic import dataset, drawing, layout, sentences
from sgmg_jax.synthetic.words import COLOURS as RGB
from sgmg_jax.synthetic.words import HELD_OUT, MOTIONS, ObjectDescription

COLOURS = {'red', 'green', 'blue', 'yellow', 'purple', 'cyan'}
SHAPES = {'circle', 'square', 'triangle', 'star', 'cross', 'ring'}
DIRECTIONS = {'left': (-1, 0), 'right': (1, 0), 'above': (0, -1), 'below': (0, 1), 'up': (0, -1), 'down': (0, 1)}
RELATION = re.compile(r' (?:(?:to the |on the )?(left|right) of|(?:that is |placed )?(above|below)) the ')
MOVING = re.compile(r' (?:moving|that moves|going) (left|right|up|down)$')
STANDING = re.compile(r' (?:standing still|that stands still|that does not move)$')


@pytest.fixture(scope='module')
def videos():
    return [synthetic.make_video(seed) for seed in range(240)]


@pytest.fixture(scope='module')
def unseen_videos():
    return [synthetic.make_video(seed, unseen=True) for seed in range(40)]


def attributes(phrase):
    """Attributes named by a noun phrase, {name: value}; fails on a word it does not know."""
    named = {}
    for word in phrase.split():
        word = {'dots': 'dotted', 'stripes': 'striped'}.get(word, word)
        for name, values in (
            ('colour', COLOURS),
            ('shape', SHAPES),
            ('size', {'small', 'large'}),
            ('texture', {'plain', 'striped', 'dotted'}),
        ):
            if word in values:
                assert name not in named, phrase
                named[name] = word
                break
        else:
            assert word in {'the', 'a', 'one', 'that', 'is', 'with'}, (word, phrase)
    return named


def matching(video, named):
    return {k for k, o in enumerate(video.objects, 1) if all(getattr(o, n) == v for n, v in named.items())}


def centroids(video, k):
    """[T 2] as (x, y); NaN where hidden."""
    result = np.full((len(video.masks), 2), np.nan)
    for t, mask in enumerate(video.masks):
        if (mask == k).any():
            result[t] = np.argwhere(mask == k).mean(0)[::-1]
    return result


def measured_motion(video, k):
    """The motion in the masks, from the frames that show the whole object; None if there are too few."""
    area = (video.masks == k).sum((1, 2))
    t = np.flatnonzero(area >= 0.97 * area.max())
    if video.objects[k - 1].motion == 'away and back' or len(t) < 2:
        return None
    x, y = (np.polyfit(t, c[t], 1)[0] for c in centroids(video, k).T)
    scale = min(video.masks.shape[1:]) / 128
    assert min(abs(x), abs(y)) < 0.5 * scale
    if max(abs(x), abs(y)) < 0.5 * scale:
        return 'still'
    slowest = min(2.5, 20 / (len(video.masks) - 1))  # Long clips are slower, to stay in the frame.
    assert slowest * scale < max(abs(x), abs(y)) < 6.5 * scale
    return ('right' if x > 0 else 'left') if abs(x) > abs(y) else ('down' if y > 0 else 'up')


def holds(video, k, relation, anchor):
    """Per frame that shows both: +1 clearly in this relation, -1 clearly in the opposite one, 0 neither."""
    direction = np.array(DIRECTIONS[relation])
    offset = centroids(video, k) - centroids(video, anchor)
    offset = offset[~np.isnan(offset[:, 0])]
    along, across = offset @ direction, np.abs(offset @ direction[::-1])
    side = video.masks.shape[2] if direction[0] else video.masks.shape[1]
    clear = (np.abs(along) >= 0.12 * side) & (np.abs(along) > across)
    assert len(along) >= len(video.masks) / 2
    return np.sign(along) * clear


def check_expression(video, expression):
    """Recomputes the objects for which the text is true."""
    relation, moving, standing = (p.search(expression.text) for p in (RELATION, MOVING, STANDING))
    target = expression.object_id
    kind = 'relation' if relation else 'motion' if moving or standing else 'attribute'
    assert expression.tags[0] == kind
    assert expression.text == expression.text.lower() == ' '.join(expression.text.split())
    if kind == 'attribute':
        assert matching(video, attributes(expression.text)) == {target}
    elif kind == 'motion':
        found = moving or standing
        candidates = matching(video, attributes(expression.text[: found.start()]))
        assert len(candidates) > 1 and target in candidates, 'the words alone name it'
        wanted = moving.group(1) if moving else 'still'
        motions = {k: measured_motion(video, k) for k in candidates}
        unclear = [k for k, m in motions.items() if m is None]
        assert not any(video.objects[k - 1].motion == 'away and back' for k in unclear)
        motions |= {k: video.objects[k - 1].motion for k in unclear}  # Too often covered to be measured.
        assert [k for k, m in motions.items() if m == wanted] == [target]
    else:
        anchors = matching(video, attributes(expression.text[relation.end() :]))
        assert len(anchors) == 1
        (anchor,) = anchors
        candidates = matching(video, attributes(expression.text[: relation.start()])) - anchors
        assert len(candidates) > 1 and target in candidates, 'the words alone name it'
        word = relation.group(1) or relation.group(2)
        for k in candidates:
            assert (holds(video, k, word, anchor) == (1 if k == target else -1)).all(), k


def test_every_expression_is_true_of_exactly_its_object(videos, unseen_videos):
    for video in videos + unseen_videos:
        assert len({e.text for e in video.expressions}) == len(video.expressions)
        for expression in video.expressions:
            check_expression(video, expression)


@pytest.mark.parametrize(
    'num_frames, size', [(5, (64, 64)), (8, (96, 161)), (13, (200, 120)), (6, (256, 256)), (24, (64, 256))]
)
def test_other_lengths_and_sizes(num_frames, size):
    for seed in range(16):
        video = synthetic.make_video(seed, num_frames, size, unseen=seed % 2 == 1)
        assert video.frames.shape == (num_frames, *size, 3) and video.frames.dtype == np.uint8
        assert video.masks.shape == (num_frames, *size) and video.masks.dtype == np.uint8
        area = np.stack([(video.masks == k).sum((1, 2)) for k in range(1, len(video.objects) + 1)])
        assert ((area >= 30 * (min(size) / 128) ** 2).mean(1) >= 0.6).all()
        for expression in video.expressions:
            check_expression(video, expression)


def test_descriptions_are_what_the_pixels_show(videos):
    """Colour, size and texture of each object, read from the frame that shows the most of it."""
    names = list(RGB)
    values = np.array([RGB[n] for n in names])
    for video in videos[:80]:
        for k, words in enumerate(video.objects, 1):
            best = (video.masks == k).sum((1, 2)).argmax()
            mask = video.masks[best] == k
            pixels = video.frames[best][mask].astype(float)
            dark = pixels.max(1) < 90
            colour = np.median(pixels[~dark], 0)
            assert names[np.abs(values - colour).sum(1).argmin()] == words.colour
            assert dark.mean() < 0.05 if words.texture == 'plain' else 0.12 < dark.mean() < 0.7
            extent = np.ptp(np.argwhere(mask), axis=0).max() + 1
            assert 16 <= extent <= 34 if words.size == 'small' else 31 <= extent <= 58


def test_motions_are_what_the_masks_show(videos, unseen_videos):
    kinds = set()
    for video in videos + unseen_videos:
        for k, words in enumerate(video.objects, 1):
            measured = measured_motion(video, k)
            assert measured in (None, words.motion)
            kinds |= {(expression.tags[0], measured) for expression in video.expressions}
    assert kinds >= {(kind, motion) for kind in ('attribute', 'motion', 'relation') for motion in MOTIONS}


@pytest.mark.parametrize('size', [(64, 96), (130, 70)])
def test_the_background_fills_every_frame(size):
    """No row or column at an edge repeats its neighbour."""
    for seed in range(20):
        frames = drawing.background(np.random.default_rng(seed), 12, size)
        for axis in (1, 2):
            assert (frames.take([0, -1], axis) != frames.take([1, -2], axis)).any((3 - axis, 3)).all()


def test_objects_are_visible_named_and_similar(videos, unseen_videos):
    covered = away = clear = total = 0
    for video in videos + unseen_videos:
        number = len(video.objects)
        assert 3 <= number <= 4 and set(np.unique(video.masks)) == set(range(number + 1))
        assert {e.object_id for e in video.expressions} == set(range(1, number + 1))
        area = np.stack([(video.masks == k).sum((1, 2)) for k in range(1, number + 1)])
        assert ((area >= 30).mean(1) >= 0.6).all()
        share = area / area.max(1, keepdims=True)
        clear, total = clear + (share > 0.6).sum(), total + share.size
        assert share[:, 0].min() > 0.4
        leaves = any(o.motion == 'away and back' for o in video.objects)
        away += leaves
        covered += not leaves and share.min() < 0.4
        kinds = {e.tags[0] for e in video.expressions}
        if 'motion' in kinds:  # A twin in every visible attribute, and a sentence for either.
            looks = collections.Counter((o.size, o.texture, o.colour, o.shape) for o in video.objects)
            twins = [k for k, o in enumerate(video.objects, 1) if looks[o.size, o.texture, o.colour, o.shape] > 1]
            assert len(twins) >= 2 and max(looks.values()) == len(twins)
            assert set(twins) <= {e.object_id for e in video.expressions if e.tags[0] == 'motion'}
        elif 'relation' in kinds:
            named = collections.Counter(e.object_id for e in video.expressions if e.tags[0] == 'relation')
            assert len(named) == 2 and len(set(named.values())) == 1
        else:  # Some sentence of two words or more has an object that differs in one of them.
            agree = [
                (len(a), sum(getattr(o, n) == v for n, v in a.items()))
                for a in (attributes(e.text) for e in video.expressions)
                for o in video.objects
            ]
            assert any(n >= 2 and same == n - 1 for n, same in agree)
    count = len(videos) + len(unseen_videos)
    assert 0.1 < covered / count < 0.3
    assert 0.1 < away / count < 0.25
    assert clear / total > 0.9


def test_an_object_that_returns_is_whole_at_both_ends():
    words = ObjectDescription('small', 'plain', 'red', 'circle')
    for seed in range(200):
        body = layout.Body(words, 24.0, 0.0, 0.0)
        motion, centres = layout._leave_and_return(np.random.default_rng(seed), body, 8, (64, 96))
        assert motion == layout.AWAY
        assert (centres[[0, -1]] >= 12).all() and (centres[[0, -1]] <= [96 - 12, 64 - 12]).all()


def test_colours_are_drawn_exactly():
    body = layout.Body(ObjectDescription('small', 'plain', 'purple', 'circle'), 24.0, 0.0, 0.0, np.full((1, 2), 32.0))
    frames, masks = drawing.draw([body], [drawing.stamp(body)], np.zeros((1, 64, 64, 3), np.uint8))
    assert masks[0, 32, 32] == 1 and tuple(frames[0, 32, 32]) == RGB['purple']


@pytest.mark.parametrize('shared, asked', [({}, False), ({'size': 'small'}, True), ({'colour': 'red'}, True)])
def test_attribute_sentences_need_a_near_miss(shared, asked):
    one = ObjectDescription('small', 'plain', 'red', 'circle', 'still')
    other = ObjectDescription(
        **{'size': 'large', 'texture': 'striped', 'colour': 'blue', 'shape': 'square', 'motion': 'still'} | shared
    )
    hidden = np.full((2, 1, 2), np.nan)
    found = [
        sentences.make_expressions(np.random.default_rng(seed), 'attribute', [one, other], hidden, (64, 64))
        for seed in range(40)
    ]
    assert any(expressions is not None for expressions in found) == asked


def test_relation_offsets_across_the_axis_are_on_both_sides(videos):
    sides = []
    for video in videos:
        for expression in video.expressions:
            if relation := RELATION.search(expression.text):
                (anchor,) = matching(video, attributes(expression.text[relation.end() :]))
                offset = np.nanmean(centroids(video, expression.object_id) - centroids(video, anchor), 0)
                sides.append(offset[1 if relation.group(1) else 0])
    assert len(sides) > 200 and 0.4 < np.mean(np.array(sides) > 0) < 0.6


def test_shares_of_the_kinds(videos):
    tags = collections.Counter(e.tags[0] for v in videos for e in v.expressions)
    total = sum(tags.values())
    assert 0.40 <= tags['attribute'] / total <= 0.58
    assert 0.18 <= tags['motion'] / total <= 0.32
    assert 0.18 <= tags['relation'] / total <= 0.32
    assert 6 <= total / len(videos) <= 10


@pytest.mark.parametrize('kind', ['attribute', 'motion', 'relation'])
def test_clips_of_one_kind(kind):
    clips = [synthetic.make_video(seed, kind=kind) for seed in range(12)]
    shares = [np.mean([expression.tags[0] == kind for expression in clip.expressions]) for clip in clips]
    assert min(shares) > 0.3 and np.mean(shares) > 0.6
    drawn = [clip for clip in map(synthetic.make_video, range(12)) if any(e.tags[0] == kind for e in clip.expressions)]
    # A clip that would be of that kind anyway is the same.
    assert sum(any(np.array_equal(a.frames, b.frames) for b in clips) for a in drawn) >= 2


def test_held_out_combinations(videos, unseen_videos):
    held_out = set(HELD_OUT)
    for position, values in enumerate((COLOURS, SHAPES)):  # Everything is seen in other combinations.
        assert sorted(pair[position] for pair in held_out) == sorted(values)
    seen = {(o.colour, o.shape) for v in videos for o in v.objects}
    assert seen == {(c, s) for c in COLOURS for s in SHAPES} - held_out
    for video in videos + unseen_videos:
        for e in video.expressions:
            target = video.objects[e.object_id - 1]
            assert ('unseen' in e.tags) == ((target.colour, target.shape) in held_out)
    assert all(any((o.colour, o.shape) in held_out for o in v.objects) for v in unseen_videos)


def test_a_single_frame_does_not_reveal_the_direction(videos):
    """For objects that look alike, the position in a frame at an unknown time is uncorrelated with the direction."""
    positions, directions, times = [], [], []
    for video in videos:
        looks = [(o.size, o.texture, o.colour, o.shape) for o in video.objects]
        for k, words in enumerate(video.objects, 1):
            if looks.count(looks[k - 1]) > 1 and any('motion' in e.tags for e in video.expressions):
                positions.append(centroids(video, k))
                directions.append([DIRECTIONS.get(words.motion, (0, 0))] * len(video.masks))
                times.append(range(len(video.masks)))
    positions, directions, times = np.array(positions), np.array(directions), np.array(times)
    assert len(positions) > 120

    def correlation(axis, chosen):
        chosen = chosen & ~np.isnan(positions[..., axis])
        return np.corrcoef(positions[..., axis][chosen], directions[..., axis][chosen])[0, 1]

    for axis in (0, 1):
        assert abs(correlation(axis, times >= 0)) < 0.12
        # At a known time it cannot vanish: an object that moves left came from the right. It stays weak,
        # and is as strong at the end as at the start.
        start, end = correlation(axis, times == 0), correlation(axis, times == 7)
        assert -0.5 < start < 0 < end < 0.5 and abs(start + end) < 0.25
        # Nor does the distance from the middle reveal whether an object moves.
        distance = np.abs(positions[..., axis] - 63.5)
        moves = directions[..., axis] != 0
        spread = np.nanstd(distance)
        assert abs(np.nanmean(distance[moves]) - np.nanmean(distance[~moves])) < 0.3 * spread


def test_same_seed_same_bytes_in_any_order():
    seeds = [3, 2**40 - 1, 0]
    first = [synthetic.make_video(s) for s in seeds]
    again = [synthetic.make_video(s) for s in reversed(seeds)][::-1]
    for a, b in zip(first, again):
        assert a.frames.tobytes() == b.frames.tobytes() and a.masks.tobytes() == b.masks.tobytes()
        assert a.objects == b.objects and a.expressions == b.expressions
    assert not np.array_equal(first[0].masks, first[2].masks)


WRONG = [
    ('seed', -1),
    ('seed', 0.5),
    ('seed', None),
    ('num_frames', 4),
    ('num_frames', 1001),
    ('num_frames', '8'),
    ('num_frames', 10**30),
    ('size', (63, 128)),
    ('size', (128, 63)),
    ('size', (2049, 128)),
    ('size', 128),
    ('size', None),
    ('size', (128,)),
    ('size', (128, 128, 3)),
    ('size', (128.0, 128)),
    ('size', (10**9, 10**9)),
    ('size', '64x64'),
    ('kind', 'colour'),
    ('kind', ''),
    ('kind', ['motion']),
]


@pytest.mark.parametrize('name, value', WRONG)
def test_arguments_out_of_range(tmp_path, name, value):
    with pytest.raises(ValueError, match=re.escape(f'{name}={value!r}: must be')):
        synthetic.make_video(**{'seed': 0, name: value})
    with pytest.raises(ValueError, match=re.escape(f'{name}={value!r}: must be')):
        synthetic.write_dataset(tmp_path / 'world', 1, 1, **{name: value})
    assert not list(tmp_path.iterdir())


def test_numbers_of_videos_and_pixels_out_of_range(tmp_path):
    for value in (-1, 100_001, 10**30, 1.5, None, '3'):
        for name in ('num_train', 'num_valid'):
            with pytest.raises(ValueError, match=re.escape(f'{name}={value!r}: must be a whole number from 0 to')):
                synthetic.write_dataset(tmp_path / 'world', **{'num_train': 0, 'num_valid': 0, name: value})
    with pytest.raises(ValueError, match='a video of more than 134,217,728 pixels'):
        synthetic.make_video(0, 33, (2048, 2048))
    assert not list(tmp_path.iterdir())


def test_an_impossible_layout_is_an_error():
    with pytest.raises(ValueError, match=r'No layout found for seed=0, num_frames=5, size=\(64, 128\), unseen=True'):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layout, 'lay_out', lambda *arguments: None)
            synthetic.make_video(0, 5, (64, 128), unseen=True)


@pytest.mark.parametrize('mask, mode', [(0o022, 0o755), (0o077, 0o700), (0o002, 0o775)])
def test_written_files_have_the_usual_permissions(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        synthetic.write_dataset(tmp_path / 'world', 1, 0, num_frames=5, size=(64, 64))
    finally:
        os.umask(before)
    for path in (tmp_path / 'world', *(tmp_path / 'world').rglob('*')):
        assert path.stat().st_mode & 0o777 == (mode if path.is_dir() else mode & 0o666), path


def test_a_link_to_an_empty_folder(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'disk')
    synthetic.write_dataset(tmp_path / 'link', 0, 0)
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'disk/train/meta.json').exists()


def test_layout_on_disk_reads_back(tmp_path):
    root, size = tmp_path / 'new' / 'world', (70, 99)
    synthetic.write_dataset(root, 5, 4, seed=7, num_frames=6, size=size)
    assert [p.name for p in root.parent.iterdir()] == ['world']

    def load(path):
        return json.loads((root / path).read_text())['videos']

    train = load('meta_expressions/train/meta_expressions.json')
    public = load('meta_expressions/valid/meta_expressions.json')
    full = load('valid/meta_expressions_challenge.json')
    assert load('meta_expressions/test/meta_expressions.json') == {}
    assert len(train) == 5 and list(public) == list(full) and len(public) == 4
    starts, with_unseen = set(), 0
    for split, entries in (('train', train), ('valid', full)):
        assert list(entries) == sorted(entries)
        assert {p.name for p in (root / split / 'JPEGImages').iterdir()} == set(entries)
        assert {p.name for p in (root / split / 'Annotations').iterdir()} == set(entries)
        for video_id, entry in entries.items():
            assert re.fullmatch('[0-9a-f]{10}', video_id)
            unseen = any('unseen' in e['tags'] for e in entry['expressions'].values())
            with_unseen += unseen
            assert not (unseen and split == 'train')
            video = synthetic.make_video(int(video_id, 16), 6, size, unseen)
            names = entry['frames']
            starts.add(int(names[0]))
            assert [int(n) - int(names[0]) for n in names] == list(range(0, 30, 5))
            assert all(re.fullmatch(r'\d{5}', n) for n in names)
            assert entry['expressions'] == {
                str(i): {'exp': e.text, 'obj_id': str(e.object_id), 'tags': list(e.tags)}
                for i, e in enumerate(video.expressions)
            }
            images = root / split / 'JPEGImages' / video_id
            assert sorted(p.name for p in images.iterdir()) == [f'{n}.jpg' for n in names]
            masks = root / split / 'Annotations' / video_id
            for t, name in enumerate(names):
                decoded = np.asarray(Image.open(images / f'{name}.jpg'), dtype=int)
                assert decoded.shape == (*size, 3) and np.abs(decoded - video.frames[t]).mean() < 6
                if split == 'train':
                    image = Image.open(masks / f'{name}.png')
                    assert image.mode == 'P'
                    np.testing.assert_array_equal(np.asarray(image), video.masks[t])
                    assert image.getpalette()[:15] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]
                else:
                    for i, e in enumerate(video.expressions):
                        image = Image.open(masks / str(i) / f'{name}.png')
                        assert image.mode == 'L'
                        expected = (video.masks[t] == e.object_id) * 255
                        np.testing.assert_array_equal(np.asarray(image), expected)
    assert with_unseen == 2 and len(starts) > 1
    for video_id, entry in public.items():
        assert entry['frames'] == full[video_id]['frames']
        expressions = full[video_id]['expressions']
        assert entry['expressions'] == {i: {'exp': e['exp']} for i, e in expressions.items()}
    for video_id, entry in load('train/meta.json').items():
        folder = root / 'train/Annotations' / video_id
        ids = {n: np.unique(Image.open(folder / f'{n}.png')) for n in train[video_id]['frames']}
        for k, described in entry['objects'].items():
            assert described['category'] in SHAPES
            assert described['frames'] == [n for n in ids if int(k) in ids[n]]

    again, more = tmp_path / 'again', tmp_path / 'more'
    again.mkdir()  # An empty folder may be there.
    synthetic.write_dataset(again, 5, 4, seed=7, num_frames=6, size=size)
    files = sorted(p.relative_to(root) for p in root.rglob('*') if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob('*') if p.is_file())
    assert all((root / f).read_bytes() == (again / f).read_bytes() for f in files)
    synthetic.write_dataset(more, 6, 0, seed=7, num_frames=6, size=size)
    longer = json.loads((more / 'meta_expressions/train/meta_expressions.json').read_text())['videos']
    assert train.items() <= longer.items() and len(longer) == 6


def test_existing_target_is_refused_and_failure_leaves_nothing(tmp_path, monkeypatch):
    root = tmp_path / 'world'
    root.mkdir()
    (root / 'mine.txt').write_text('keep')
    with pytest.raises(FileExistsError, match='world'):
        synthetic.write_dataset(root, 1, 1)
    assert [p.name for p in tmp_path.rglob('*')] == ['world', 'mine.txt']

    def save_json(path, videos):
        raise OSError('No space left on device')

    monkeypatch.setattr(dataset, '_save_json', save_json)
    with pytest.raises(OSError, match='No space left'):
        synthetic.write_dataset(tmp_path / 'other', 1, 0)
    assert [p.name for p in tmp_path.iterdir()] == ['world']


def test_a_data_set_of_one_kind(tmp_path):
    for name, split in (('ref_youtube_vos', 'valid'), ('mevis', 'valid_u')):
        synthetic.write_dataset(tmp_path / name, 0, 2, size=(64, 64), layout=name, kind='relation')
        (folder, *_) = sorted((tmp_path / name / split / 'JPEGImages').iterdir())
        first = sorted(folder.iterdir())[0]
        clip = synthetic.make_video(int(folder.name, 16), size=(64, 64), kind='relation', unseen=False)
        other = synthetic.make_video(int(folder.name, 16), size=(64, 64), kind='relation', unseen=True)
        found = np.asarray(Image.open(first), int)
        assert min(np.abs(found - c.frames[0]).mean() for c in (clip, other)) < 6  # JPEG


def test_objects_that_look_alike():
    for seed in range(12):
        clip = synthetic.make_video(seed, size=(64 + 8 * seed, 112), unseen=seed % 2 == 0, kind='alike')
        motions = [one.motion for one in clip.objects]
        assert len({one.look for one in clip.objects}) == 1 and len(set(motions)) == len(motions) in (3, 4)
        assert {tag for sentence in clip.expressions for tag in sentence.tags} - {'unseen'} == {'motion'}
        assert {sentence.object_id for sentence in clip.expressions} == set(range(1, len(motions) + 1))
        for sentence in clip.expressions:  # the words of the motion, and of no other
            words = {'left', 'right', 'up', 'down'} & set(sentence.text.split())
            assert words == {clip.objects[sentence.object_id - 1].motion} - {'still'}


def test_command(tmp_path):
    command = [
        sys.executable,
        '-m',
        'sgmg_jax.synthetic',
        f'--out={tmp_path / "world"}',
        '--train=1',
        '--valid=1',
        '--frames=5',
        '--size',
        '64',
        '80',
        '--seed=3',
    ]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0 and 'train: 100%' in result.stderr, result.stderr
    frames = list((tmp_path / 'world/train/JPEGImages').glob('*/*.jpg'))
    assert len(frames) == 5 and all(Image.open(f).size == (80, 64) for f in frames)
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 2 and 'not an empty folder' in again.stderr and 'Traceback' not in again.stderr
