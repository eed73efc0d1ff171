"""Masks from a video and sentences. A video is encoded once, however many sentences are asked of it.

Axis letters: T frames, n frames of a window, H W pixels, E sentences (e of them asked together), Q queries.
"""
from collections.abc import Sequence
import contextlib
import functools
import os
import pathlib

from absl import logging
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from sgmg_jax import checkpoints, compilation, systems, types
from sgmg_jax import config as configs
from sgmg_jax.convert import weights
from sgmg_jax.data import clips, text
from sgmg_jax.ops import masks, queries, resize

TOKENS = 16  # sentences are padded to multiples of this
FREE = {'remat', 'dtype', 'inference_layer'}  # of config.model: trained parameters can be evaluated with any


class Predictor:
    """A trained model, ready to be asked.

        predictor = Predictor.from_workdir('runs/demo')
        masks = predictor(frames, ['the red star', 'the circle moving left'])
    """

    def __init__(self, model, parameters, tokenizer, *, short_side, max_side, clip_frames, text_length, sentences=1,
                 origin=''):
        """Args:
            model: models.sgmg.SgMg, or another of systems.SYSTEMS.
            parameters: its parameters, nested.
            tokenizer: of data.text.
            short_side, max_side: pixels that frames are resized to, see data.clips.prepare_clip.
            clip_frames: frames that are looked at together; longer videos are cut in windows.
            text_length: L, tokens a sentence at most.
            sentences: that are asked together at most. For SgMg only memory and time depend on it; of Fast SgMg the
              masks do, a little, too.
            origin: in words, where the parameters are from.

        Raises:
            ValueError: for a parameter that is not finite, and for a tokenizer of more tokens than the text encoder.
        """
        check_vocabulary(tokenizer, model.text_encoder)
        if parameters is not None:
            weights.check_finite(traverse_util.flatten_dict(parameters, sep='/'), origin or 'parameters')
        self.parameters, self.origin, self.tokenizer = parameters, origin, tokenizer
        self._text_length = text_length
        self._short_side, self._max_side, self._clip_frames = short_side, max_side, clip_frames
        self._sentences = sentences
        self._conventions = model.conventions
        self._encode = compilation.jit(lambda p, clip: model.apply({'params': p}, clip, method='encode_video'))
        self._segment, self._segment_all = (
            compilation.jit(functools.partial(segment, model)) for segment in (best_masks, _segment_all))
        # Apart, as videos that are alike when resized and padded may differ in their own size.
        self._original_size = compilation.jit(_original_size, static_argnums=(1, 2))
        self._binary_at = compilation.jit(masks.binary_at, static_argnums=(1, 2, 3))

    @classmethod
    def from_workdir(cls, workdir, checkpoint='best', config=None):
        """The model that `train.py --workdir` made.

        Args:
            workdir: of the run.
            checkpoint: 'best', 'latest' or a step, see checkpoints.Checkpoints.find.
            config: whose sizes of evaluation to use; by default those the run was started with.

        Raises:
            FileNotFoundError: if there is no run or no such checkpoint; lists what is there.
            ValueError: if config.model is not what the run trained, which names the fields; for a damaged workdir.
        """
        workdir = pathlib.Path(workdir)
        config = check_model(config, workdir)
        model = systems.build_model(config.model)
        tokenizer = text.load_tokenizer(workdir / 'tokenizer.json')
        step, parameters = restore_parameters(model, workdir, checkpoint, tokenizer)
        return cls.from_config(config, model, parameters, tokenizer, f'{workdir}, step {step}')

    @classmethod
    def from_weights(cls, config):
        """The model of config.model with the weights of config.init, such as the authors' released ones.

        Raises:
            FileNotFoundError: for weights or a tokenizer that are not there.
            ValueError: if the weights do not fit the model, or do not fill it.
        """
        configs.check(config)
        model = systems.build_model(config.model)
        shapes = parameter_shapes(model)
        found, report = weights.load(configs.paths(config.init), traverse_util.unflatten_dict(shapes, sep='/'))
        for line in report:
            logging.info('weights: %s', line)
        missing = sorted(set(shapes) - set(found))
        if missing:
            raise ValueError(f'config.init = {configs.paths(config.init)}: {len(missing)} parameters are in none of '
                             f'them, first {missing[0]}. Give the weights of a whole model, or train first.')
        if config.data.tokenizer is None:
            raise ValueError('config.data.tokenizer is not set: give the folder with vocab.json and merges.txt.')
        parameters = {path: jnp.asarray(x, shapes[path].dtype) for path, x in found.items()}
        parameters = traverse_util.unflatten_dict(parameters, sep='/')
        return cls.from_config(config, model, parameters, text.load_tokenizer(config.data.tokenizer),
                               '; '.join(report))

    @classmethod
    def from_config(cls, config, model, parameters, tokenizer, origin=''):
        """With the sizes of config.evaluation."""
        return cls(model, parameters, tokenizer, text_length=config.data.text_length, origin=origin,
                   **{name: config.evaluation[name] for name in ('short_side', 'max_side', 'clip_frames', 'sentences')})

    def __call__(self, frames, sentences):
        """frames [T H W 3] uint8 RGB, or a list of them; a list of E sentences -> masks [E T H W] bool.

        Raises:
            TypeError, ValueError: for frames or sentences of another kind, and for a sentence that is
                empty or too long.
            FloatingPointError: if the model gives what is no number, as damaged weights do.
        """
        if isinstance(sentences, str) or not isinstance(sentences, Sequence) or not len(sentences):
            raise TypeError(f'sentences = {sentences!r:.100}: must be a list of one sentence or more.')
        frames = check_frames(frames)
        text.encode(self.tokenizer, sentences, self._text_length)  # all of them, before the work begins
        found = np.zeros((len(sentences), *frames.shape[:3]), bool)
        for start, ask in self.windows(lambda window: frames[window.start:window.stop], len(frames)):
            for of_sentence, logits in zip(found, ask(sentences)):
                of_sentence[start:start + len(logits)] = logits > 0
        return found

    def windows(self, read, length):
        """Goes through a video of any length holding one window of it.

        Windows of clip_frames frames follow each other without overlap, the last takes what is left; each is
        segmented by itself, its own best query chosen. This is the protocol of Ref-DAVIS17 (36 frames), and leaves
        the videos of Ref-YouTube-VOS (36 frames at most) whole.

        Args:
            read: function(range of frame indices) -> frames uint8 [n H W 3], RGB.
            length: T.

        Yields:
            the window's first frame; function(sentences) -> iterator of their logits, each float32 [n H W], above 0
            on the object.
        """
        for start in range(0, length, self._clip_frames):
            yield start, self._window(read(range(start, min(start + self._clip_frames, length))))

    def _window(self, frames):
        clip, video = self._encode_clip(frames)

        def ask(sentences):
            for group in groups(sentences, self._sentences):
                every = self._segment(self.parameters, video, self._tokens(group), clip.valid[:, :, 0, 0])
                for logits, _ in zip(every, group):
                    yield self._resized(logits, clip, frames)[:len(frames)]

        return ask

    def _encode_clip(self, frames, annotated=None):
        clip = pad_clip(*clips.prepare_clip(frames, self._short_side, self._max_side), self._conventions)
        clip = clip.replace(annotated=annotated)
        return clip, self._encode(self.parameters, clip)

    def _tokens(self, sentences):
        """Filled up to an even number of sentences, and of tokens to a multiple of 16: every shape is a program."""
        count = len(sentences)
        tokens = text.encode(self.tokenizer, sentences, self._text_length, count if count == 1 else count + count % 2)
        longest = -(-int(tokens.valid.sum(1).max()) // TOKENS) * TOKENS
        return types.Text(tokens.tokens[:, :longest], tokens.valid[:, :longest])

    def _resized(self, logits, clip, frames):
        resized = np.asarray(self._original_size(logits, tuple(clip.size[0].tolist()), frames.shape[1:3]))
        # No number is above 0: the mask would be empty without a word.
        if not np.isfinite(resized).all():
            raise FloatingPointError(f'the model gives mask logits that are not finite; its weights ({self.origin}) '
                                     'are damaged, or too large for config.model.dtype.')
        return resized

    def annotated(self, read, length, index):
        """One frame of a video, clip_frames around it being context for the backbone only (A2D-Sentences, JHMDB).

        Args:
            read: function(frame indices [n]) -> frames uint8 [n H W 3], RGB.
            length: T.
            index: of the frame that is asked for.

        Returns:
            function(sentence) -> scores [Q] in [0, 1] and masks [Q H W] bool of every query.
        """
        indices, position = clips.annotated_window(index, length, self._clip_frames,
                                                   self._conventions.annotated_in_the_middle)
        frames = read(indices)
        clip, video = self._encode_clip(frames, np.array([position], np.int32))

        def ask(sentence):
            scores, logits = self._segment_all(self.parameters, video, self._tokens([sentence]))
            if not self._conventions.cut_before_resizing:
                return np.asarray(scores), self._resized(logits, clip, frames) > 0
            size = tuple(clip.size[0].tolist())
            # The release evaluates RefCOCO's pictures on the stride-4 map's own grid, videos on that of the frame.
            grid = size if length > 1 else tuple(4 * n for n in logits.shape[1:])
            return np.asarray(scores), np.asarray(self._binary_at(logits, grid, size, frames.shape[1:3]))

        return ask


def pad_clip(frames, size, conventions):
    """frames [T h w 3] float32 -> types.Clip of one clip, T and H, W multiples of what models.features.Conventions say.

    Time is filled to the next multiple of the backbone's window, so that videos of many lengths
    share a few compiled programs; the result for the real frames stays the same. A picture stays one frame.
    """
    length, (height, width) = len(frames), size
    bucket = conventions.frames if length > 1 else 1
    pads = [-n % multiple for n, multiple in zip((length, height, width), (bucket, *[conventions.pixels] * 2))]
    valid = np.ones((length, height, width), bool)
    widths = [(0, pad) for pad in pads]
    return types.Clip(np.pad(frames, [*widths, (0, 0)])[None], np.pad(valid, widths)[None],
                      np.array([size], np.int32))


def groups(sentences, most):
    """Lists of at most so many sentences, as few and as equal as can be, one after the other."""
    count = -(-len(sentences) // most)
    ends = [len(sentences) * i // count for i in range(count + 1)]
    return [sentences[start:end] for start, end in zip(ends, ends[1:])]


def best_masks(model, parameters, video, tokens, real_frames):
    """What the model makes of sentences that are asked together.

    Args:
        model: of systems.SYSTEMS.
        parameters: its parameters, nested.
        video: models.features.VideoFeatures of one clip.
        tokens: types.Text of e sentences.
        real_frames: [1 T] bool, False for frames that fill the clip in time.

    Returns:
        mask logits [e T H W] of the best query of each, padded; [e T h w] of SOC.
    """
    def call(module):
        words = module.encode_text(tokens)
        proposals = module.segment(video, words)
        real = jnp.broadcast_to(real_frames, (len(words.sentence), real_frames.shape[1]))
        query = queries.best_query(proposals, real)
        return module.optimize(queries.take_query(proposals.patch_masks, query), video)[0]

    return model.apply({'params': parameters}, method=call)


def _segment_all(model, parameters, video, tokens):
    """One sentence, one frame: scores [Q] and mask logits [Q H W], padded, of every query; [Q h w] of SOC."""
    def call(module):
        proposals = module.segment(video, module.encode_text(tokens))
        every = jnp.moveaxis(proposals.patch_masks[-1], 2, 0)  # Q N T h w P
        return jax.nn.sigmoid(proposals.scores[-1, 0, 0]), module.optimize(every, video)[:, 0, 0]

    return model.apply({'params': parameters}, method=call)


def _original_size(logits, crop, size):
    """[T H W] padded -> [T H W] of the original frames. Logits are resized, not probabilities. SOC's [T h w], which
    have no padding to crop, directly, as released."""
    return resize.bilinear(logits[:, :crop[0], :crop[1], None], size)[..., 0]


def check_vocabulary(tokenizer, text_encoder):
    """Raises ValueError for a tokenizer with tokens that the text encoder, of models.roberta.SIZES, does not have."""
    highest = max(tokenizer.get_vocab().values())
    if highest >= text_encoder.vocabulary:
        raise ValueError(f'the tokenizer has the token {highest}, config.model.text_encoder takes '
                         f'{text_encoder.vocabulary} tokens. Give the tokenizer that belongs to the weights, or choose '
                         'the text encoder that belongs to it.')


def check_frames(frames):
    """Frames as an array uint8 [T H W 3].

    Args:
        frames: such an array, or a list of its frames.

    Raises:
        TypeError: for a path, None or what else holds no frames.
        ValueError: for frames of another type, number of axes or channels, without a pixel, or of several sizes.
    """
    if isinstance(frames, str | os.PathLike):
        raise TypeError(f'frames = {os.fspath(frames)!r:.100}: give the frames themselves, such as '
                        'sgmg_jax.video.read_frames(path).')
    wanted = 'must be uint8 [T H W 3], RGB'
    if isinstance(frames, list | tuple):
        shapes = sorted({np.shape(frame) for frame in frames if isinstance(frame, np.ndarray)})
        if len(shapes) > 1:
            raise ValueError(f'frames: have several sizes, {", ".join(map(str, shapes[:3]))}: a video has one.')
    elif not hasattr(frames, '__array__'):
        raise TypeError(f'frames: a {type(frames).__name__}: {wanted}.')
    try:
        frames = np.asarray(frames)
    except ValueError as error:
        raise ValueError(f'frames: hold items that make no array ({error}): {wanted}.') from error
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f'frames: {frames.dtype} {frames.shape}: {wanted}.')
    return frames


def check_model(config, workdir):
    """The config a run was started with, or `config` if it describes the same model.

    Raises:
        FileNotFoundError: if `workdir` holds no run.
        ValueError: naming the fields of config.model that differ, but for those that are FREE; for a damaged
            config.json.
    """
    trained = configs.read(workdir)
    if config is None:
        return trained
    configs.check(config)
    fields = sorted({*trained.model, *config.model} - FREE)
    different = [f'config.model.{field} was {trained.model.get(field)!r}, is now {config.model.get(field)!r}'
                 for field in fields if trained.model.get(field) != config.model.get(field)]
    if different:
        raise ValueError(f'{workdir}: its checkpoints are of another model: {"; ".join(different)}. '
                         'Give the config it was trained with.')
    return config


def restore_parameters(model, workdir, checkpoint='best', tokenizer=None):
    """Step and nested parameters of a checkpoint of the run in `workdir`, which must have been trained with
    `tokenizer`, if that is given. Raises as `Predictor.from_workdir` does."""
    with contextlib.closing(checkpoints.Checkpoints(workdir, read_only=True)) as saved:
        step = saved.find(checkpoint)
        if tokenizer:
            saved.check_tokenizer(step, tokenizer)
        restored = saved.restore_parameters(step, parameter_shapes(model))
    return step, traverse_util.unflatten_dict(restored, sep='/')


def parameter_shapes(model):
    """Shapes and types of the model's parameters: path -> ShapeDtypeStruct. Computes nothing."""
    return traverse_util.flatten_dict(systems.parameter_shapes(model), sep='/')
