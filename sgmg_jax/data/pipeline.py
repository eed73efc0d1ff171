"""Training batches whose content is a function of the step.

Batch k holds the same clips, augmented the same way, for any number of processes, worker processes and earlier
interruptions: the loader has no state to save.
"""

from collections.abc import Iterator, Sequence
import copy
import ctypes
import dataclasses
import re
import signal
import sys
import typing

from absl import logging
import cv2
import grain
import jax
from jaxtyping import Int, Int32
import numpy as np
import tokenizers

from sgmg_jax import processes, types
from sgmg_jax.data import augment, clips, metadata, records, text

MAX_DRAWS = 100  # clips tried for one place in a batch before an error is raised


@typing.no_type_check  # checks its own arguments
def train_batches(
    source: records.Records,
    tokenizer: tokenizers.Tokenizer,
    *,
    num_frames: int,
    frame_size: tuple[int, int],
    text_length: int,
    batch_size: int,
    augmentation: augment.Augmentation,
    seed: int,
    sentences: int = 1,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    reverse_probability: float | int = 0.3,
    consecutive: bool = False,
    on_bad_clip: str = 'raise',
) -> Iterator[types.Example]:
    """Endless batches of augmented clips; every epoch is shuffled anew.

    An epoch has `len(clips.training_index(source.videos, num_frames, sentences, consecutive))` clips. If no frame of
    a clip shows the object (it is absent or cropped off), another clip is drawn in its place, as in the released
    code. Of several sentences, those whose object is absent are dropped. Sentences without target (MeViS) are kept:
    their object is absent from every frame, which teaches low scores.

    Args:
        source: a split with ground truth.
        tokenizer: from `text.load_tokenizer` or `text.train_tokenizer`.
        num_frames: T, frames per clip.
        frame_size: (H, W), the static shape; smaller clips are padded, larger ones scaled down.
        text_length: L, maximum tokens per sentence, including <s> and </s>; at least 3.
        batch_size: clips in the global batch; must be a multiple of `process_count`.
        augmentation: its parameters and order.
        seed: of the order and the augmentation, below 2 ** 32.
        sentences: E, maximum sentences per clip; if above 1, see `choose_sentences`.
        start_step: the first batch to yield, to resume an interrupted run.
        process_index, process_count: the global batch is split evenly among the processes; which part to yield.
        num_workers: loader processes; 0 loads in two threads of this process. Workers need parsed absl
            flags and a guarded main module, and die with this process.
        reverse_probability: how often a clip runs backwards.
        consecutive: clips are windows of consecutive frames, see clips.training_index, or clips.annotated_window if
            only some frames are annotated. Otherwise clips.sample_frames draws the frames.
        on_bad_clip: 'raise' stops at the first clip that cannot be loaded, for any reason, and at once for a video
            or sentence that can never be; 'skip' draws another clip instead, drops such videos and sentences, and
            logs counted warnings.

    Returns:
        An iterator of `types.Example` with NumPy leaves, B = batch_size / process_count and N = B E. It has a
        method `close()`: call it in a `finally`, or worker processes may leave shared memory behind.

    Raises:
        ValueError: at once for wrong arguments and for a bad video or sentence (names it, see `usable`); while
            iterating, for a bad clip (names video and frame), or if 100 draws in a row show no object.
        ChildProcessError: while iterating, if a loader process has died.
    """
    for name, value, low, high in (
        ('num_frames', num_frames, 1, 1000),
        ('text_length', text_length, 3, 2**14),
        ('batch_size', batch_size, 1, 2**20),
        ('sentences', sentences, 1, 1000),
        ('seed', seed, 0, 2**32 - 1),
        ('start_step', start_step, 0, 10**9),
        ('num_workers', num_workers, 0, 1000),
        ('process_count', process_count, 1, 2**20),
    ):
        augment.check_number(name, value, low, high)
    augment.check_number('process_index', process_index, 0, process_count - 1)
    augment.check_number('reverse_probability', reverse_probability, 0, 1, whole=False)
    if not isinstance(frame_size, tuple | list) or len(frame_size) != 2:
        raise ValueError(f'frame_size = {frame_size!r:.200}: must be (height, width).')
    for side in frame_size:
        augment.check_number('frame_size', side, *augment.SIDES_BETWEEN)
    if batch_size % process_count:
        raise ValueError(
            f'batch_size={batch_size}: must be a multiple of the {process_count} processes. '
            'Change batch_size in the config.'
        )
    if on_bad_clip not in ('raise', 'skip'):
        raise ValueError(f"on_bad_clip={on_bad_clip!r}: must be 'raise' or 'skip'.")
    source = usable(source, tokenizer, text_length, augmentation, on_bad_clip)
    index = clips.training_index(source.videos, num_frames, sentences, consecutive)
    if not len(index):
        raise ValueError(f'{source.directory}: split {source.split!r} has no clips to train on.')
    load = LoadClip(
        source,
        index,
        tokenizer,
        num_frames,
        tuple(frame_size),
        text_length,
        sentences,
        augmentation,
        reverse_probability,
        consecutive,
        on_bad_clip,
    )
    # The random numbers of a clip depend on its place in the endless sequence, so this comes before the slicing.
    clips_of_all_steps = grain.MapDataset.range(len(index)).seed(seed).shuffle().repeat().random_map(load)
    # The parts are consecutive in the global arrays, too. So a clip keeps its place in the batch, and with it its
    # dropout, for any number of processes.
    parts = clips_of_all_steps.batch(batch_size // process_count, drop_remainder=True, batch_fn=_collate)
    batches = parts[start_step * process_count + process_index :: process_count].to_iter_dataset(
        grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
    )
    if num_workers:
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2),
            worker_init_fn=_die_with_parent,
        )
        return _from_workers(batches, num_workers)
    return iter(batches)


def usable(
    source: records.Records,
    tokenizer: tokenizers.Tokenizer,
    text_length: int,
    augmentation: augment.Augmentation,
    on_bad_clip: str,
) -> records.Records:
    """The records without videos and sentences that can never become a clip: frames of an impossible size, masks of
    frames that do not exist, sentences that are empty, too long or not text.

    Raises:
        ValueError: naming the first such video or expression, if on_bad_clip is 'raise'.
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
            text.encode(tokenizer, [other], text_length)  # Swapped, it may have more tokens.

    videos = []
    for video in source.videos:
        good = is_good(_check_video, f'video {video.name}', video) and tuple(
            e for e in video.expressions if is_good(check_sentence, f'video {video.name}, expression {e.id}', e.text)
        )
        videos.append(dataclasses.replace(video, expressions=good or ()))
    source = copy.copy(source)
    source.videos = tuple(videos)
    return source


def _check_video(video: metadata.Video) -> None:
    clips.check_size(video.height, video.width)
    wrong = [frame for frame, _ in video.mask_places or () if not 0 <= frame < len(video.frame_names)]
    if wrong:
        raise ValueError(f'has a mask of frame {wrong[0]} of {len(video.frame_names)}. Build the records again.')


def choose_sentences(
    expressions: Sequence[metadata.Expression], rng: np.random.Generator, most: int
) -> list[metadata.Expression]:
    """Draws which of a video's sentences to process together; at most `most`, in random order.

    With equal probability: one sentence per object, or per group of objects (as in Ref-DAVIS17's groups), a random
    number of sentences, or all of them (as in Ref-YouTube-VOS). The paper does not say how it draws them.
    """
    drawn = [expressions[i] for i in rng.permutation(len(expressions))]
    how = rng.integers(3)
    if how == 0:
        drawn = list({expression.objects: expression for expression in drawn}.values())
    elif how == 1:
        drawn = drawn[: rng.integers(1, len(drawn) + 1)]
    return drawn[:most]


def _collate(examples: Sequence[types.Example]) -> types.Example:
    """Joins the examples of several clips into one."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *examples)


def load_sample(
    record: records.Record,
    expressions: Sequence[metadata.Expression],
    indices: Int[np.ndarray, ' T'],
    centre: int,
    position: int | None = None,
) -> clips.Sample:
    """Decodes the frames at `indices`, which include the centre, and the masks of the expressions' objects in them.

    If only the centre is annotated, `position` is its place in `indices` (default: the first match).
    """
    annotated = None
    if record.video.mask_places is None:
        masks_of = record.decode_targets(indices)
        masks = np.concatenate([masks_of(expression) for expression in expressions])
    else:
        masks = np.stack([record.decode_object(expression.object_id, centre) for expression in expressions])
        if len(record.video.frame_names) > 1:
            annotated = int(np.flatnonzero(indices == centre)[0]) if position is None else position
    boxes, present = clips.boxes_of_masks(masks)
    return clips.Sample(
        record.decode_frames(indices),
        masks,
        boxes,
        present,
        tuple(e.text for e in expressions),
        annotated,
        tuple(e.objects == () for e in expressions),
    )


@dataclasses.dataclass
class LoadClip(grain.transforms.RandomMap):
    """Turns a row of the training index into the arrays of one augmented clip (B = 1)."""

    source: records.Records
    index: Int32[np.ndarray, 'N 3']
    tokenizer: tokenizers.Tokenizer
    num_frames: int
    frame_size: tuple[int, int]
    text_length: int
    sentences: int
    augmentation: augment.Augmentation
    reverse_probability: float | int
    consecutive: bool
    on_bad_clip: str
    skipped: int = 0

    def random_map(self, row: int, rng: np.random.Generator) -> types.Example:
        # Clips are loaded in parallel already; OpenCV's own threads would only compete for the cores.
        cv2.setNumThreads(1)
        for _ in range(MAX_DRAWS):
            number, position, centre = self.index[row].tolist()
            video = self.source.videos[number]
            expressions = video.expressions[position : position + 1]
            if self.sentences > 1:
                expressions = choose_sentences(video.expressions, rng, self.sentences)
            try:
                example = self._load(number, expressions, centre, rng)
                if example is not None:
                    return example
            except Exception as error:  # Damaged records can make the libraries raise anything.
                message = str(error) if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'
                if not message.startswith('video '):
                    message = f'video {video.name}, around frame {video.frame_names[centre]}: {message}'
                if self.on_bad_clip == 'raise':
                    raise ValueError(message) from error
                self.skipped += 1
                logging.warning('Skipped a bad clip, number %d of this process: %s', self.skipped, message)
            row = int(rng.integers(len(self.index)))
        objects = ' and '.join(map(str, expressions[0].objects or ()))
        raise ValueError(
            f'{self.source.directory}: in {MAX_DRAWS} draws no clip of split {self.source.split!r} could be '
            f'used; the last was video {video.name}, expression {expressions[0].id}, object '
            f'{objects}, around frame {video.frame_names[centre]}. Check that its masks show the object, that crops '
            'are not too small and pictures not too narrow.'
        )

    def _load(
        self, number: int, expressions: Sequence[metadata.Expression], centre: int, rng: np.random.Generator
    ) -> types.Example | None:
        """A clip around a frame; None if it shows no object of a sentence, or is a picture too narrow for
        `pseudo_clip`."""
        video = self.source.videos[number]
        copies = len(video.frame_names) == 1 < self.num_frames  # of a picture of RefCOCO
        if copies and augment.too_narrow(video.height, video.width):
            return None
        indices, where = self._choose_frames(rng, video, centre)
        sample = load_sample(self.source[number], expressions, indices, centre, where)
        if copies:
            sample = augment.pseudo_clip(sample, rng, self.num_frames)
        sample = augment.apply(sample, rng, self.augmentation, self.frame_size)
        sample = clips.visible(sample)
        if not sample.sentences:
            return None
        tokens = text.encode(self.tokenizer, sample.sentences, self.text_length, self.sentences)
        example = clips.to_example(sample, tokens, self.frame_size)
        return dataclasses.replace(example, origin=np.array([[number, centre]], np.int32))

    def _choose_frames(
        self, rng: np.random.Generator, video: metadata.Video, centre: int
    ) -> tuple[Int[np.ndarray, ' T'], int | None]:
        """Frame indices and the position of the centre among them; None: its first occurrence."""
        length = len(video.frame_names)
        if length == 1:
            return np.zeros(1, np.int32), None
        if not self.consecutive:
            return clips.sample_frames(rng, length, centre, self.num_frames, self.reverse_probability), None
        if video.mask_places is None:
            return clips.consecutive_frames(centre, length, self.num_frames), None
        return clips.annotated_window(centre, length, self.num_frames, middle=True)


def _from_workers(batches: grain.IterDataset, count: int) -> Iterator[types.Example]:
    """Iterates over the batches; explains the death of a loader process."""
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
            f'config.data.workers = {count}: a loader process died with exit code {code}{name}. '
            f'{processes.advice(count)} Re-run the same command to resume from the latest checkpoint.'
        ) from error
    finally:
        iterator.close()


def _die_with_parent(worker_index: int, worker_count: int) -> None:
    """Ends with the trainer, even a killed one, but ignores SIGTERM: sent to all processes of a job, it would end the
    workers before the trainer has saved."""
    del worker_index, worker_count
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == 'linux':
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
