import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time

import cv2
import jax
import numpy as np
import pytest
import raw_tree
import small

from sgmg_jax.benchmarks import loader
from sgmg_jax.data import augment, clips, metadata, pipeline, records, text

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = dict(
    num_frames=3,
    frame_size=(40, 72),
    text_length=24,
    batch_size=4,
    seed=7,
    augmentation=augment.Augmentation(scales=(24, 32, 40), max_size=72, crop_scales=(40, 48), crop_size=(24, 40)),
)


@pytest.fixture(scope='module')
def tokenizer():
    return text.train_tokenizer([value['exp'] for value in raw_tree.expressions().values()], 300)


@pytest.fixture(scope='module')
def source(records_folder):
    return records.open_records(records_folder, 'train')


def take(count, source, tokenizer, **changes):
    batches = pipeline.train_batches(source, tokenizer, **SETTINGS | changes)
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
            np.testing.assert_array_equal(x, y)


def test_shapes_and_meaning(source, tokenizer):
    for batch in take(6, source, tokenizer):
        assert batch.clip.frames.shape == (4, 3, 40, 72, 3) and batch.clip.frames.dtype == np.uint8
        assert batch.clip.valid.shape == batch.targets.masks.shape == (4, 3, 40, 72)
        assert batch.clip.size.shape == (4, 2) and batch.text.tokens.shape == (4, 24)
        assert batch.targets.boxes.shape == (4, 3, 4) and batch.targets.boxes.dtype == np.float32
        assert all(
            leaf.dtype == bool
            for leaf in (batch.clip.valid, batch.text.valid, batch.targets.masks, batch.targets.present)
        )
        assert batch.targets.present.any(1).all()  # Never a clip without its object.
        assert ((batch.targets.boxes >= 0) & (batch.targets.boxes <= 1)).all()
        assert not batch.targets.boxes[~batch.targets.present].any()
        assert not batch.targets.masks[~batch.clip.valid].any()
        assert not batch.clip.frames[~batch.clip.valid].any()
        np.testing.assert_array_equal(batch.clip.valid.sum((1, 2, 3)), 3 * batch.clip.size.prod(1))


def test_workers_do_not_change_the_batches(source, tokenizer):
    assert_same(take(4, source, tokenizer), take(4, source, tokenizer, num_workers=2))


def test_resuming_gives_the_rest_also_in_later_epochs(source, tokenizer):
    clips_an_epoch = len(clips.training_index(source.videos, 3))
    whole = take(9, source, tokenizer)
    assert 9 * 4 > clips_an_epoch
    for start in (1, 4, 8):
        assert_same(whole[start:], take(9 - start, source, tokenizer, start_step=start))


def test_two_processes_together_are_the_global_batch(source, tokenizer):
    whole = take(5, source, tokenizer)
    parts = [take(5, source, tokenizer, process_index=index, process_count=2) for index in range(2)]
    for index, part in enumerate(parts):
        assert_same([jax.tree.map(lambda rows, index=index: np.split(rows, 2)[index], batch) for batch in whole], part)


def test_an_epoch_sees_every_clip_once_and_the_next_in_another_order(source, tokenizer, monkeypatch):
    seen = []
    monkeypatch.setattr(pipeline.LoadClip, 'random_map', lambda self, row, rng: seen.append(int(row)) or row)
    monkeypatch.setattr(pipeline, '_collate', np.stack)
    count = len(clips.training_index(source.videos, 3))
    batches = take(2 * count, source, tokenizer, batch_size=1)
    order = [int(batch[0]) for batch in batches]
    assert sorted(order[:count]) == sorted(order[count:]) == list(range(count))
    assert order[:count] != order[count:]


def test_seeds_differ_and_so_do_the_draws_of_two_epochs(source, tokenizer):
    one, other = take(1, source, tokenizer)[0], take(1, source, tokenizer, seed=8)[0]
    assert not np.array_equal(one.clip.frames, other.clip.frames)
    # One clip per epoch: the same row with new random draws.
    single = records.Records(
        source.directory,
        source.split,
        (dataclasses.replace(source.videos[0], expressions=source.videos[0].expressions[:1]),),
        source._sources,
    )
    first, second = take(2, single, tokenizer, batch_size=1, num_frames=6)
    assert not np.array_equal(first.clip.frames, second.clip.frames)


class Spoilt(records.Records):
    """The same records with one truncated JPEG in the first video, and masks without object 2."""

    def __init__(self, source, cut=(), blank=False):
        super().__init__(source.directory, source.split, source.videos, source._sources)
        self.cut, self.blank = cut, blank

    def __getitem__(self, index):
        record = super().__getitem__(index)
        if index in self.cut:
            record = dataclasses.replace(record, frames=tuple(frame[:-100] for frame in record.frames))
        if self.blank:
            record = dataclasses.replace(record, masks=(record.masks[2],) * len(record.masks))
        return record


def test_a_bad_clip_raises_with_its_name(source, tokenizer):
    with pytest.raises(ValueError, match='video aaa0000001, frame 000..: the image is broken or truncated'):
        take(4, Spoilt(source, cut=(0,)), tokenizer)


def test_a_bad_clip_can_be_skipped_with_a_counted_warning(source, tokenizer, caplog):
    spoilt = Spoilt(source, cut=(0,))
    batches = take(4, spoilt, tokenizer, on_bad_clip='skip')
    messages = [record.getMessage() for record in caplog.records if 'bad clip' in record.getMessage()]
    assert messages[0].startswith('Skipped a bad clip, number 1 of this process: video aaa0000001')
    assert f'number {len(messages)} of' in messages[-1]
    # The replacement is a function of the step, too.
    assert_same(batches, take(4, spoilt, tokenizer, on_bad_clip='skip'))
    with pytest.raises(ValueError, match='in 100 draws no clip of split .train. could be used'):
        take(1, Spoilt(source, cut=(0, 1)), tokenizer, on_bad_clip='skip')


def bad_records(change):
    """Videos 'good' and 'bad' with one mask per object and frame; `change` gets the entry and video of 'bad'."""
    places = tuple((frame, number) for frame in range(3) for number in (1, 2))
    source = small.made_up([small.video_of('good', 3, places), small.video_of('bad', 3, places)])
    entry, video = source._sources[0][1], source.videos[1]
    video = change(entry, video) or video
    return records.Records('memory', 'train', (source.videos[0], video), source._sources)


OF_BAD = 4  # row of the index


def load_clip(source, tokenizer, on_bad_clip):
    index = np.array([(number, number, centre) for number in (0, 1) for centre in (0, 1, 2)] * 4, np.int32)
    return pipeline.LoadClip(
        source, index, tokenizer, 3, (64, 96), 24, 1, augment.Augmentation(order=()), 0.3, False, on_bad_clip
    )


def changed(**fields):
    return lambda entry, video: dataclasses.replace(video, **fields)


def spoken(*sentences):
    return lambda entry, video: dataclasses.replace(
        video,
        expressions=tuple(dataclasses.replace(e, text=sentence) for e, sentence in zip(video.expressions, sentences)),
    )


def put(name, data):
    def change(entry, video):
        entry[name] = [data] * len(entry[name])

    return change


@pytest.mark.parametrize(
    'change',
    [
        put('frames', b''),
        put('frames', b'%!PS-Adobe'),
        put('frames', 5),
        put('frames', small.encoded(np.zeros((8, 8, 3), np.uint8), 'PNG')),  # of another size
        put('masks', b'broken'),
        put('masks', small.encoded(np.zeros((8, 8), np.uint8), 'PNG')),
        put('masks', small.encoded(np.zeros((54, 96, 3), np.uint8), 'PNG')),
        lambda entry, video: entry['masks'].clear(),
        lambda entry, video: entry['frames'].clear(),
        lambda entry, video: entry.__delitem__('masks'),
        lambda entry, video: entry.update(video=b'another'),
    ],
)
def test_bad_records_raise_or_are_skipped(tokenizer, caplog, change):
    """'raise' names the video and its frame, 'skip' draws another clip and counts."""
    load, words = load_clip(bad_records(change), tokenizer, 'raise'), 'video bad, (around )?frame [012]: .'
    with pytest.raises(ValueError, match=f'^{words}'):
        load.random_map(OF_BAD, np.random.default_rng(0))
    load.on_bad_clip, rng = 'skip', np.random.default_rng(0)
    assert {int(load.random_map(OF_BAD, rng).origin[0, 0]) for _ in range(3)} == {0}
    # Threads of other tests may still log theirs.
    skipped = [message for message in caplog.messages if 'video bad' in message]
    assert load.skipped == len(skipped) >= 3
    assert all(
        re.match(f'Skipped a bad clip, number {i} of this process: {words}', message)
        for i, message in enumerate(skipped, 1)
    )


@pytest.mark.parametrize('error', [cv2.error('no size'), MemoryError(), OverflowError('too large'), OSError('gone')])
def test_any_library_exception_is_a_bad_clip(tokenizer, monkeypatch, error):
    decode = records.Record.decode_frames

    def decode_frames(record, indices=None):
        if record.video.name == 'bad':
            raise error
        return decode(record, indices)

    monkeypatch.setattr(records.Record, 'decode_frames', decode_frames)
    load = load_clip(bad_records(changed()), tokenizer, 'raise')
    with pytest.raises(ValueError, match=f'^video bad, around frame .: (cv2.)?{type(error).__name__}: .*{error}'):
        load.random_map(OF_BAD, np.random.default_rng(0))
    load.on_bad_clip = 'skip'
    assert load.random_map(OF_BAD, np.random.default_rng(0)).origin[0, 0] == 0


LONG = 'word ' * 30


@pytest.mark.parametrize(
    'change, words, count',
    [
        (changed(height=0), 'video bad: frames of 96x0 pixels', 1),
        (changed(width=-96), 'video bad: frames of -96x54', 1),
        (changed(height=1, width=2000), 'video bad: frames of 2000x1 pixels: the long side', 1),
        (changed(height=1601, width=100), 'video bad: frames of 100x1601 pixels', 1),
        (changed(mask_places=((0, 1), (3, 2))), 'video bad: has a mask of frame 3 of 3', 1),
        (changed(mask_places=((-1, 1),)), 'video bad: has a mask of frame -1 of 3', 1),
        (spoken('a cat', ' \n'), 'video bad, expression 1: sentence 0 of 1 is empty', 1),
        (spoken(LONG, LONG + 'b'), 'video bad, expression 0: the sentence .* has .* tokens', 2),
        (spoken('a' * 10**6, 'dogs'), 'video bad, expression 0: .*1,000,000 characters', 1),
        (spoken('a\0b', 'dogs'), 'video bad, expression 0: .*not text', 1),
    ],
)
def test_videos_and_sentences_that_cannot_be_used(tokenizer, caplog, change, words, count):
    """'raise' fails before the first step, 'skip' drops and counts them."""
    source = bad_records(change)
    with pytest.raises(ValueError, match=f'^memory: {words}'):
        pipeline.train_batches(source, tokenizer, **SETTINGS)
    pipeline.train_batches(source, tokenizer, **SETTINGS, on_bad_clip='skip').close()
    left_out = [message for message in caplog.messages if 'Left out' in message]
    assert len(left_out) == count
    assert all(message.startswith(f'Left out, number {i}: memory: video bad') for i, message in enumerate(left_out, 1))
    left = pipeline.usable(source, tokenizer, 24, augment.Augmentation(), 'skip')
    assert [len(video.expressions) for video in left.videos] == [2, 2 - count if 'expression' in words else 0]
    assert [len(video.expressions) for video in source.videos] == [2, 2]


def test_no_usable_clip_is_an_error(tokenizer):
    source = bad_records(changed(height=0))
    bad = records.Records('memory', 'train', source.videos[1:], source._sources)
    with pytest.raises(ValueError, match="memory: split 'train' has no clips to train on"):
        pipeline.train_batches(bad, tokenizer, **SETTINGS, on_bad_clip='skip')


def test_a_mirrored_sentence_may_have_more_tokens():
    """'left' is one token here, 'right' are five."""
    tokenizer = text.train_tokenizer(['the cat on the left'] * 5, 300)
    source = small.made_up([small.video_of('a', 1, ((0, 1), (0, 2)))])
    length = len(tokenizer.encode('the cat on the left').ids)
    with pytest.raises(ValueError, match="video a, expression 0: the sentence 'the cat on the right' has"):
        pipeline.train_batches(source, tokenizer, **SETTINGS | {'text_length': length})
    for never in (dict(flip_probability=0), dict(order=('select',))):
        changes = {'text_length': length, 'augmentation': dataclasses.replace(SETTINGS['augmentation'], **never)}
        pipeline.train_batches(source, tokenizer, **SETTINGS | changes).close()


def test_narrow_pictures_are_skipped(tokenizer):
    """The released code makes no clips of them; as single frames, as in pretraining, they are used."""

    def picture(name, width):
        return dataclasses.replace(small.video_of(name, 1, ((0, 1), (0, 2))), height=50, width=width)

    both = small.made_up([picture('narrow', 161), picture('wide', 160)])
    settings = dict(frame_size=(64, 208), augmentation=augment.Augmentation(order=()))
    origins = [
        {
            int(number)
            for batch in take(4, both, tokenizer, num_frames=count, **settings)
            for number in batch.origin[:, 0]
        }
        for count in (2, 1)
    ]
    assert origins == [{1}, {0, 1}]
    narrow = records.Records('memory', 'train', both.videos[:1], both._sources)
    with pytest.raises(ValueError, match='in 100 draws no clip .* pictures not too narrow'):
        take(1, narrow, tokenizer, **settings)
    # A film is no picture.
    film = small.made_up([dataclasses.replace(small.video_of('film', 3, ((0, 1), (1, 2))), height=50, width=161)])
    assert take(1, film, tokenizer, **settings)


def test_an_always_absent_object_does_not_hang(source, tokenizer):
    videos = tuple(dataclasses.replace(video, expressions=video.expressions[2:]) for video in source.videos)
    only_second = records.Records(source.directory, source.split, videos, source._sources)
    message = r'in 100 draws no clip .* video \w+, expression [23], object 2, around frame'
    with pytest.raises(ValueError, match=message):
        take(1, Spoilt(only_second, blank=True), tokenizer)


def test_wrong_arguments(source, tokenizer, records_folder):
    with pytest.raises(ValueError, match='batch_size=3: must be a multiple of the 2 processes'):
        take(1, source, tokenizer, batch_size=3, process_count=2)
    with pytest.raises(ValueError, match="on_bad_clip='ignore'"):
        take(1, source, tokenizer, on_bad_clip='ignore')
    with pytest.raises(ValueError, match='has no ground truth to train on'):
        take(1, records.open_records(records_folder, 'valid'), tokenizer)
    with pytest.raises(ValueError, match='text_length=4'):
        take(1, source, tokenizer, text_length=4)


@pytest.mark.parametrize(
    'name, least, most',
    [
        ('num_frames', 1, 1000),
        ('text_length', 3, 16384),
        ('batch_size', 1, 2**20),
        ('sentences', 1, 1000),
        ('seed', 0, 2**32 - 1),
        ('start_step', 0, 10**9),
        ('num_workers', 0, 1000),
        ('process_count', 1, 2**20),
        ('process_index', 0, 0),
    ],
)
def test_whole_numbers_out_of_range(tokenizer, name, least, most):
    for value in (least - 1, most + 1, -(10**30), 1.5, float('nan'), '2', None, True):
        with pytest.raises(ValueError, match=rf'{name} = {value!r}: must be a whole number from {least} to {most}\.'):
            pipeline.train_batches(None, tokenizer, **SETTINGS | {name: value})


@pytest.mark.parametrize('size', [(0, 72), (40, -1), (40, 10**6), (40.0, 72), (15, 72), (40, 8193)])
def test_frame_sizes_out_of_range(tokenizer, size):
    with pytest.raises(ValueError, match='frame_size = .*: must be a whole number from 16 to 8192'):
        pipeline.train_batches(None, tokenizer, **SETTINGS | {'frame_size': size})


def test_other_arguments_out_of_range(tokenizer):
    for size in (64, (64,), (64, 64, 3), '64', None):
        with pytest.raises(ValueError, match=r'frame_size = .*: must be \(height, width\)'):
            pipeline.train_batches(None, tokenizer, **SETTINGS | {'frame_size': size})
    for value in (-0.1, 1.1, float('nan'), '0', None):
        with pytest.raises(ValueError, match='reverse_probability = .*: must be a number from 0 to 1'):
            pipeline.train_batches(None, tokenizer, **SETTINGS, reverse_probability=value)


def test_the_largest_arguments(source, tokenizer):
    [batch] = take(1, source, tokenizer, seed=2**32 - 1, start_step=10**9, reverse_probability=1)
    assert batch.clip.frames.shape == (4, 3, 40, 72, 3)


@pytest.mark.skipif(sys.platform != 'linux', reason='the death signal is a service of Linux')
def test_workers_die_with_a_killed_parent(records_folder, tmp_path):
    script = tmp_path / 'trainer.py'
    script.write_text(
        textwrap.dedent(f"""
        import multiprocessing, time
        from absl import app
        from sgmg_jax.data import augment, pipeline, records, text

        def main(argv):
            source = records.open_records({str(records_folder)!r}, 'train')
            tokenizer = text.train_tokenizer(['a cat'], 300)
            batches = pipeline.train_batches(
                source, tokenizer, num_frames=3, frame_size=(40, 72), text_length=40, batch_size=1, seed=0,
                augmentation=augment.Augmentation(scales=(32,), crop_probability=0), num_workers=1)
            next(batches)
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            time.sleep(60)

        if __name__ == '__main__':
            app.run(main)
        """)
    )
    trainer = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    workers = [int(word) for word in trainer.stdout.readline().split()]
    assert workers and all(pathlib.Path(f'/proc/{worker}').exists() for worker in workers)
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()

    def alive():
        stats = [pathlib.Path(f'/proc/{worker}/stat') for worker in workers]
        return [stat for stat in stats if stat.exists() and stat.read_text().rsplit(')', 1)[1].split()[0] != 'Z']

    while alive():  # Without an end if they outlive it: how slow a machine is decides nothing.
        time.sleep(0.1)


def test_a_killed_worker_is_reported(source, tokenizer):
    others = multiprocessing.active_children()
    batches = pipeline.train_batches(source, tokenizer, **SETTINGS, num_workers=1)
    try:
        next(batches)
        (worker,) = set(multiprocessing.active_children()) - set(others)
        os.kill(worker.pid, signal.SIGKILL)
        # Clips loaded earlier come first.
        with pytest.raises(ChildProcessError, match=r'config.data.workers = 1: .* died with exit code -9 \(SIGKILL\)'):
            for _ in range(20):
                next(batches)
    finally:
        batches.close()


def test_sentences_of_a_clip_together(source, tokenizer):
    """Fast SgMg: text and targets per sentence, padding sentences last; sentences of absent objects are dropped."""
    index = clips.training_index(source.videos, 3, sentences=3)
    alone = clips.training_index(source.videos, 3)
    assert sorted(map(tuple, index[:, [0, 2]])) == sorted({tuple(row) for row in alone[:, [0, 2]].tolist()})
    numbers = set()
    for batch in take(12, source, tokenizer, sentences=3, batch_size=2):
        targets = batch.targets
        assert batch.clip.frames.shape == (2, 3, 40, 72, 3) and targets.masks.shape == (6, 3, 40, 72)
        assert batch.text.tokens.shape == (6, 24) and targets.boxes.shape == (6, 3, 4)
        np.testing.assert_array_equal(targets.asked, targets.present.any(1))
        np.testing.assert_array_equal(targets.asked, batch.text.valid.any(1))
        np.testing.assert_array_equal(targets.size, np.repeat(batch.clip.size, 3, axis=0))
        for asked in targets.asked.reshape(2, 3):
            assert asked[0] and asked.tolist() == sorted(asked, reverse=True)
            numbers.add(int(asked.sum()))
        assert not targets.masks[~targets.asked].any()
    assert numbers == {1, 2, 3}
    assert_same(take(3, source, tokenizer, sentences=3), take(3, source, tokenizer, sentences=3, num_workers=1))


def test_masks_do_not_depend_on_the_number_of_sentences_per_clip(source, tokenizer):
    still = dict(
        augmentation=augment.Augmentation(order=()),
        frame_size=(54, 96),
        reverse_probability=0,
        text_length=40,
        num_frames=6,
    )

    def by_sentence(batches):
        found = {}
        for batch in batches:
            each = len(batch.text.tokens) // len(batch.clip.frames)
            for i, tokens in enumerate(batch.text.tokens):
                frames = batch.clip.frames[i // each]
                found[tokens.tobytes(), frames.tobytes()] = batch.targets.masks[i], batch.targets.boxes[i]
        return found

    single = records.Records(source.directory, source.split, source.videos[:1], source._sources)
    alone = by_sentence(take(40, single, tokenizer, **still))
    together = by_sentence(take(10, single, tokenizer, sentences=4, **still))
    shared = set(alone) & set(together)
    assert len({tokens for tokens, _ in shared}) == 4
    for key in shared:
        np.testing.assert_array_equal(alone[key][0], together[key][0])
        np.testing.assert_array_equal(alone[key][1], together[key][1])


def test_loader_benchmark_runs(source, capsys):
    loader.measure(source, num_clips=2, runs=1, cores='all cores')
    loader.measure_workers(source, num_clips=2, runs=1, workers=[1])
    *_, alone, worker = capsys.readouterr().out.splitlines()
    assert alone.startswith('loader, batches of 1') and worker.startswith('loader, 1 worker(s)')
    assert float(worker.split()[-2]) > 0 and worker.endswith(' clips/s')


def test_choose_sentences_draws_objects_all_or_any():
    """One per object, all (up to the limit), or a random number of them."""
    expressions = [metadata.Expression(str(i), f'sentence {i}', 1 + i % 3, ()) for i in range(8)]
    rng = np.random.default_rng(0)
    drawn = [pipeline.choose_sentences(expressions, rng, 6) for _ in range(3000)]
    assert all(len(set(group)) == len(group) <= 6 for group in drawn)
    groups = [sorted(e.object_id for e in group) for group in drawn]
    np.testing.assert_allclose(np.mean([group == [1, 2, 3] for group in groups]), 1 / 3 + 1 / 24 * 2 / 7, atol=0.04)
    np.testing.assert_allclose(
        np.bincount([len(group) for group in drawn], minlength=7) / 3000,
        [0, 1 / 24, 1 / 24, 1 / 3 + 1 / 24, 1 / 24, 1 / 24, 1 / 3 + 3 / 24],
        atol=0.04,
    )
    assert {e for group in drawn for e in group} == set(expressions)
    assert {tuple(group) for group in groups if len(group) == 2} >= {(1, 1), (1, 2), (3, 3)}
    assert all(len(pipeline.choose_sentences(expressions[:1], rng, 6)) == 1 for _ in range(20))
    assert max(len(pipeline.choose_sentences(expressions, rng, 2)) for _ in range(100)) == 2


def test_single_object_annotations_refuse_several_sentences():
    source = small.made_up([small.video_of('a', 9, ((2, 1), (6, 2)))])
    with pytest.raises(ValueError, match='config.data.sentences = 2: each frame of video a is annotated for one'):
        clips.training_index(source.videos, 3, sentences=2)


def test_an_annotated_frame_with_context_around_it(tokenizer):
    """A2D-Sentences: one sample per frame in which the object is annotated, with targets for that frame only."""
    source = small.made_up([small.video_of('a', 9, ((2, 1), (6, 2), (7, 1)))])
    assert clips.training_index(source.videos, 3).tolist() == [[0, 0, 2], [0, 0, 7], [0, 1, 6]]
    augmentation = augment.Augmentation(order=(), crop_probability=0)
    seen = set()
    for batch in take(6, source, tokenizer, frame_size=(64, 96), augmentation=augmentation, reverse_probability=0):
        assert batch.targets.masks.shape == (4, 1, 64, 96) and batch.targets.boxes.shape == (4, 1, 4)
        assert batch.clip.frames.shape == (4, 3, 64, 96, 3) and batch.clip.annotated.shape == (4,)
        for frames, position in zip(batch.clip.frames, batch.clip.annotated):
            levels = np.round(frames[:, 0, 0, 0] / 20).astype(int)  # which frame each is
            seen.add(int(levels[position]))
            assert (np.diff(levels) >= 0).all() and levels[:position].tolist().count(levels[position]) == 0
    assert seen == {2, 6, 7}


def test_consecutive_frames(source, tokenizer):
    """SOC's clips: windows without overlap, the last moved back to be full; a short video repeats its last frame."""
    lengths = [len(video.frame_names) for video in source.videos]
    for count, firsts in ((3, {6: [0, 3], 7: [0, 3, 4]}), (40, {6: [0], 7: [0]})):
        index = clips.training_index(source.videos, count, consecutive=True)
        for number, length in enumerate(lengths):
            assert sorted(set(index[index[:, 0] == number, 2])) == firsts[length]
    assert clips.consecutive_frames(0, 3, 5).tolist() == [0, 1, 2, 2, 2]
    assert clips.consecutive_frames(4, 9, 3).tolist() == [4, 5, 6]

    annotated = small.made_up([small.video_of('a', 9, ((0, 1), (6, 2)))])
    augmentation = augment.Augmentation(order=(), crop_probability=0)
    seen = set()
    for batch in take(
        4, annotated, tokenizer, num_frames=4, frame_size=(64, 96), augmentation=augmentation, consecutive=True
    ):
        for frames in batch.clip.frames:
            levels = np.round(frames[:, 0, 0, 0] / 20).astype(int)  # which frame each is
            seen.add(tuple(levels.tolist()))
        assert (batch.clip.annotated == 2).all()
    assert seen == {(0, 0, 0, 1), (4, 5, 6, 7)}


def test_pictures_become_clips_and_crowds_are_ignored(tokenizer):
    """RefCOCO in joint training; in pretraining its clips have one frame."""
    places = (0, 1), (0, 2)
    source = small.made_up([small.video_of('a', 1, places), small.video_of('b', 1, places, tags=('crowd',))])
    assert clips.training_index(source.videos, 5).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]
    for batch in take(3, source, tokenizer):
        assert batch.targets.masks.shape == (4, 3, 40, 72) and batch.clip.annotated is None
        assert batch.targets.present.any(1).all()
        assert all(len({mask.tobytes() for mask in masks}) > 1 for masks in batch.targets.masks)
    for batch in take(2, source, tokenizer, num_frames=1):
        assert batch.targets.masks.shape == (4, 1, 40, 72) and batch.clip.annotated is None
        assert batch.targets.present.all()


def test_videos_and_pictures_in_one_epoch(source, tokenizer):
    pictures = small.made_up([small.video_of('a', 1, ((0, 1), (0, 2)))])
    both = records.Records('both', 'train', source.videos + pictures.videos, source._sources + pictures._sources)
    sizes = {batch.clip.frames.shape for batch in take(8, both, tokenizer)}
    assert sizes == {(4, 3, 40, 72, 3)}
