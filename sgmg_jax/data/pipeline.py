"""Training batches, in an order that follows from the step alone.

Batch k holds the same clips, augmented the same way, whatever the number of processes, of worker
processes, and of interruptions before it: nothing about the loader has to be saved.
"""
from collections.abc import Iterator, Sequence
import copy
import ctypes
import dataclasses
import re
import signal
import sys

from absl import logging
import cv2
import grain
import jax
import numpy as np
import tokenizers

from sgmg_jax import processes, types
from sgmg_jax.data import augment, clips, metadata, records, text

MAX_DRAWS = 100  # Clips tried for one place in a batch before the data is called unfit.


def train_batches(source: records.Records, tokenizer: tokenizers.Tokenizer, *, num_frames: int,
                  frame_size: tuple[int, int], text_length: int, batch_size: int,
                  augmentation: augment.Augmentation, seed: int, sentences: int = 1, start_step: int = 0,
                  process_index: int = 0, process_count: int = 1, num_workers: int = 0,
                  reverse_probability: float = 0.3, consecutive: bool = False,
                  on_bad_clip: str = 'raise') -> Iterator[types.Example]:
    """Endless batches of augmented clips; every epoch is shuffled anew.

    An epoch has `len(clips.training_index(source.videos, num_frames, sentences, consecutive))` clips. Where no
    frame of a clip shows the object (it is away, or cropped off), another clip is drawn in its place, as the
    released code does; of several sentences, those are left out whose object is away.

    Args:
        source: a split with ground truth.
        tokenizer: of `text.load_tokenizer` or `text.train_tokenizer`.
        num_frames: T, frames a clip.
        frame_size: (H, W), the static shape; smaller clips are padded, larger ones scaled down.
        text_length: L, tokens a sentence at most, with <s> and </s>; at least 3.
        batch_size: clips of the global batch; `process_count` must divide it.
        augmentation: what is drawn, and in which order.
        seed: of order and augmentation, below 2 ** 32.
        sentences: E, that are asked of a clip at most; of several see `choose_sentences`.
        start_step: the first batch to yield, to go on after an interruption.
        process_index, process_count: of so many equal parts of every global batch, which this process yields.
        num_workers: processes that load; 0 loads in two threads of this one. They need parsed absl
            flags and a guarded main module, and die with this process.
        reverse_probability: how often a clip runs backwards.
        consecutive: clips are windows of frames that follow each other, see clips.training_index, and where only
            some frames are annotated, clips.annotated_window; otherwise clips.sample_frames draws them.
        on_bad_clip: 'raise' stops at a clip that cannot be made, for whatever reason, and before the first at a
            video or sentence of which none can be made; 'skip' draws another instead, leaves such videos and
            sentences out, and logs counted warnings.

    Returns:
        An iterator of `types.Example` with NumPy leaves, B = batch_size / process_count and N = B E. It has
        `close()`: call it in a `finally`, or worker processes may leave shared memory behind.

    Raises:
        ValueError: at once for wrong arguments, and for a bad video or sentence (names it, see `usable`); while
            iterating, for a bad clip (names video and frame), or data in which 100 draws in a row show no object.
        ChildProcessError: while iterating, when a process that loads has died.
    """
    for name, value, low, high in (
            ('num_frames', num_frames, 1, 1000), ('text_length', text_length, 3, 2 ** 14),
            ('batch_size', batch_size, 1, 2 ** 20), ('sentences', sentences, 1, 1000),
            ('seed', seed, 0, 2 ** 32 - 1), ('start_step', start_step, 0, 10 ** 9),
            ('num_workers', num_workers, 0, 1000), ('process_count', process_count, 1, 2 ** 20)):
        augment.check_number(name, value, low, high)
    augment.check_number('process_index', process_index, 0, process_count - 1)
    augment.check_number('reverse_probability', reverse_probability, 0, 1, whole=False)
    if not isinstance(frame_size, tuple | list) or len(frame_size) != 2:
        raise ValueError(f'frame_size = {frame_size!r:.200}: must be (height, width).')
    for side in frame_size:
        augment.check_number('frame_size', side, *augment.SIDES_BETWEEN)
    if batch_size % process_count:
        raise ValueError(f'batch_size={batch_size}: must be a multiple of the {process_count} processes. '
                         'Change batch_size in the config.')
    if on_bad_clip not in ('raise', 'skip'):
        raise ValueError(f"on_bad_clip={on_bad_clip!r}: must be 'raise' or 'skip'.")
    source = usable(source, tokenizer, text_length, augmentation, on_bad_clip)
    index = clips.training_index(source.videos, num_frames, sentences, consecutive)
    if not len(index):
        raise ValueError(f'{source.directory}: split {source.split!r} has no clips to train on.')
    load = LoadClip(source, index, tokenizer, num_frames, tuple(frame_size), text_length, sentences, augmentation,
                    reverse_probability, consecutive, on_bad_clip)
    # The draws of a clip are tied to its place in the endless sequence, hence before slicing.
    clips_of_all_steps = grain.MapDataset.range(len(index)).seed(seed).shuffle().repeat().random_map(load)
    # Parts of a batch lie one after the other in the global arrays, too, so that a clip has the same place in its
    # batch, and so the same dropout, whatever the number of processes.
    parts = clips_of_all_steps.batch(batch_size // process_count, drop_remainder=True, batch_fn=_collate)
    batches = parts[start_step * process_count + process_index::process_count].to_iter_dataset(
        grain.ReadOptions(num_threads=2, prefetch_buffer_size=2))
    if num_workers:
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2),
            worker_init_fn=_die_with_parent)
        return _from_workers(batches, num_workers)
    return iter(batches)


def usable(source: records.Records, tokenizer: tokenizers.Tokenizer, text_length: int,
           augmentation: augment.Augmentation, on_bad_clip: str) -> records.Records:
    """The same records without the videos and sentences of which no clip can be made: frames of an impossible size,
    masks of frames that there are not, sentences that are empty, too long or no text.

    Raises:
        ValueError: naming the first video or expression, where on_bad_clip is 'raise'.
    """
    skipped = 0

    def is_good(check, where, *arguments):
        nonlocal skipped
        try:
            check(*arguments)
        except (ValueError, TypeError) as error:
            message = f'{source.directory}: {where}: {error}'
            if on_bad_clip == 'raise':
                raise ValueError(message) from error
            skipped += 1
            logging.warning('Left out, number %d: %s', skipped, message)
            return False
        return True

    def check_sentence(sentence):
        text.encode(tokenizer, [sentence], text_length)
        other = augment.swap_sides(sentence)
        if other != sentence and 'flip' in augmentation.order and augmentation.flip_probability:
            text.encode(tokenizer, [other], text_length)  # It may have more tokens.

    videos = []
    for video in source.videos:
        good = is_good(_check_video, f'video {video.name}', video) and tuple(
            e for e in video.expressions
            if is_good(check_sentence, f'video {video.name}, expression {e.id}', e.text))
        videos.append(dataclasses.replace(video, expressions=good or ()))
    source = copy.copy(source)
    source.videos = tuple(videos)
    return source


def _check_video(video: metadata.Video) -> None:
    clips.check_size(video.height, video.width)
    wrong = [frame for frame, _ in video.mask_places or () if not 0 <= frame < len(video.frame_names)]
    if wrong:
        raise ValueError(f'has a mask of frame {wrong[0]} of {len(video.frame_names)}. Build the records again.')


def choose_sentences(expressions: Sequence[metadata.Expression], rng: np.random.Generator,
                     most: int) -> list[metadata.Expression]:
    """Which of a video's sentences are asked of a clip together; at most so many, in random order.

    Each as often: one sentence for each object, as Ref-DAVIS17's groups have it; all sentences, as in Ref-YouTube-VOS;
    any number of any. The paper does not say how it drew them.
    """
    drawn = [expressions[i] for i in rng.permutation(len(expressions))]
    how = rng.integers(3)
    if how == 0:
        drawn = list({expression.object_id: expression for expression in drawn}.values())
    elif how == 1:
        drawn = drawn[:rng.integers(1, len(drawn) + 1)]
    return drawn[:most]


def _collate(examples: Sequence[types.Example]) -> types.Example:
    """Clips get the axis B, texts and targets N in the place of E."""
    def join(how, name):
        return jax.tree.map(lambda *parts: how(parts), *(getattr(example, name) for example in examples))

    return types.Example(join(np.stack, 'clip'), join(np.concatenate, 'text'), join(np.concatenate, 'targets'),
                         join(np.stack, 'origin'))


@dataclasses.dataclass
class LoadClip(grain.transforms.RandomMap):
    """From a row of the training index to the arrays of one augmented clip (no axis B)."""
    source: records.Records
    index: np.ndarray
    tokenizer: tokenizers.Tokenizer
    num_frames: int
    frame_size: tuple[int, int]
    text_length: int
    sentences: int
    augmentation: augment.Augmentation
    reverse_probability: float
    consecutive: bool
    on_bad_clip: str
    skipped: int = 0

    def random_map(self, row: int, rng: np.random.Generator) -> types.Example:
        # Clips are loaded side by side already; OpenCV's own threads would only fight over the cores.
        cv2.setNumThreads(1)
        for _ in range(MAX_DRAWS):
            number, position, centre = self.index[row].tolist()
            video = self.source.videos[number]
            expressions = video.expressions[position:position + 1]
            if self.sentences > 1:
                expressions = choose_sentences(video.expressions, rng, self.sentences)
            try:
                example = self._load(number, expressions, centre, rng)
                if example is not None:
                    return example
            except Exception as error:  # Whatever damaged records make the libraries raise.
                message = str(error) if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'
                if not message.startswith('video '):
                    message = f'video {video.name}, around frame {video.frame_names[centre]}: {message}'
                if self.on_bad_clip == 'raise':
                    raise ValueError(message) from error
                self.skipped += 1
                logging.warning('Skipped a bad clip, number %d of this process: %s', self.skipped, message)
            row = int(rng.integers(len(self.index)))
        raise ValueError(
            f'{self.source.directory}: in {MAX_DRAWS} draws no clip of split {self.source.split!r} could be '
            f'used; the last was video {video.name}, expression {expressions[0].id}, object '
            f'{expressions[0].object_id}, around frame {video.frame_names[centre]}. Check that its '
            'masks show the object, and that neither crops are too small nor pictures too narrow.')

    def _load(self, number: int, expressions: Sequence[metadata.Expression], centre: int,
              rng: np.random.Generator) -> types.Example | None:
        """A clip around a frame; None where no object is seen, and of pictures too narrow to be copied."""
        video = self.source.videos[number]
        copies = len(video.frame_names) == 1 < self.num_frames  # of a picture of RefCOCO
        if copies and augment.too_narrow(video.height, video.width):
            return None
        indices, where = self._choose_frames(rng, video, centre)
        sample = clips.load_sample(self.source[number], expressions, indices, centre, where)
        if copies:
            sample = augment.pseudo_clip(sample, rng, self.num_frames)
        sample = augment.apply(sample, rng, self.augmentation, self.frame_size)
        if not sample.present.any():
            return None
        sample = clips.visible(sample)
        tokens = text.encode(self.tokenizer, sample.sentences, self.text_length, self.sentences)
        return clips.to_example(sample, tokens, self.frame_size).replace(origin=np.array([number, centre], np.int32))

    def _choose_frames(self, rng: np.random.Generator, video: metadata.Video, centre: int
                       ) -> tuple[np.ndarray, int | None]:
        """Indices [T], and where in them the centre is; None: wherever it comes first."""
        length = len(video.frame_names)
        if length == 1:
            return np.zeros(1, np.int32), None
        if not self.consecutive:
            return clips.sample_frames(rng, length, centre, self.num_frames, self.reverse_probability), None
        if video.mask_places is None:
            return clips.consecutive_frames(centre, length, self.num_frames), None
        return clips.annotated_window(centre, length, self.num_frames, middle=True)


def _from_workers(batches: grain.IterDataset, count: int) -> Iterator[types.Example]:
    """Iterates over them; says what it means when a process that loads them has died."""
    iterator = iter(batches)
    try:
        yield from iterator
    except RuntimeError as error:
        death = re.search(r'terminated unexpectedly with exit code (-?\d+)', str(error))
        if not death:
            raise
        code = int(death[1])
        name = f' ({signal.Signals(-code).name})' if code < 0 else ''
        raise ChildProcessError(
            f'config.data.workers = {count}: a process that loads clips has died, with exit code {code}{name}. '
            f'{processes.advice(count)} The same command goes on from the latest checkpoint.') from error
    finally:
        iterator.close()


def _die_with_parent(worker_index: int, worker_count: int) -> None:
    """Without this a killed trainer leaves its workers running; and a SIGTERM that is sent to all processes of a job
    would end the workers before the trainer has saved."""
    del worker_index, worker_count
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == 'linux':
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
