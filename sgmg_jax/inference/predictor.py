"""Masks from a video and sentences. A video is encoded once for any number of sentences.

Axis letters: T frames, n frames of a window, H W pixels, E sentences, Q queries.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import copy
import dataclasses
import itertools
import os
import pathlib
from typing import Any, NamedTuple, no_type_check

from absl import logging
from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Shaped, UInt8
from ml_collections import ConfigDict
import numpy as np
import tokenizers

from sgmg_jax import config as configs
from sgmg_jax import systems, types
from sgmg_jax.convert import folder, weights
from sgmg_jax.data import clips, text
from sgmg_jax.inference import pretrained, restore, segment
from sgmg_jax.models import features

TOKENS = 16  # sentences are padded to a multiple of this

Frames = UInt8[np.ndarray, 'n H W 3']  # RGB


class Answer(NamedTuple):
    """To one sentence, in one window. Its masks stay on the device until they are asked for.

    scores: in [0, 1], how sure the model is that the object is in the frame.
    fetch: function(binary) -> the mask logits at the size of the frames, or whether they are above 0: a quarter of the
        bytes. Raises FloatingPointError if they are not finite.
    """

    scores: Float[np.ndarray, ' n']
    fetch: Callable[[bool], Shaped[np.ndarray, 'n H W']]

    @property
    def logits(self) -> Float[np.ndarray, 'n H W']:
        """Above 0 on the object."""
        return self.fetch(False)

    def masks(self, threshold: float | int) -> Bool[np.ndarray, 'n H W']:
        """The masks; empty if the mean score is below `threshold`, in [0, 1]."""
        found = self.fetch(True)
        return found if self.reaches(threshold) else np.zeros_like(found)

    def reaches(self, threshold: float | int) -> bool:
        """Whether the mean score does."""
        return bool(self.scores.mean() >= threshold)


Ask = Callable[[Sequence[str]], Iterator[Answer]]  # sentences -> their answers, one after the other


class Window(NamedTuple):
    """Consecutive frames of a film, and what was found in them.

    start: index of the first frame.
    scores: see `Answer`.
    owner: for each pixel the number of the sentence whose mask covers it, counted from 1; where masks overlap, the one
        with the highest logit. 0: none.
    """

    start: int
    frames: Frames
    masks: Bool[np.ndarray, 'E n H W']
    scores: Float[np.ndarray, 'E n']
    owner: UInt8[np.ndarray, 'n H W']


class Predictor:
    """A trained model that segments videos.

    predictor = Predictor.from_pretrained('demo')
    masks = predictor(frames, ['the red star', 'the circle moving left'])
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping | None,
        tokenizer: tokenizers.Tokenizer,
        *,
        short_side: int,
        max_side: int | None,
        clip_frames: int,
        text_length: int,
        sentences: int = 1,
        threshold: float | int = 0.0,
        origin: str = '',
        config: ConfigDict | None = None,
    ) -> None:
        """Args:
            model: a module of systems.SYSTEMS.
            parameters: its parameters, nested.
            tokenizer: see data.text.
            short_side, max_side: pixels that frames are resized to, see data.clips.prepare_clip.
            clip_frames: frames that are processed together; longer videos are cut into windows.
            text_length: maximum number of tokens per sentence.
            sentences: maximum number of sentences processed together. For SgMg it changes only memory and time; the
              masks of Fast SgMg depend on it slightly.
            threshold: of `__call__` and of the benchmarks' files: a sentence whose mean score in a window is below it
              has empty masks there.
            origin: where the parameters are from, in words.
            config: of the model; `save_pretrained` needs it.

        Raises:
            ValueError: for a parameter that is not finite, and for a tokenizer with more tokens than the text encoder.
        """
        restore.check_vocabulary(tokenizer, model.text_encoder)
        if parameters is not None:
            weights.check_finite(traverse_util.flatten_dict(parameters, sep='/'), origin or 'parameters')
        self.parameters, self.origin, self.tokenizer, self.config = parameters, origin, tokenizer, config
        self.model = model
        self.text_length = text_length
        self.short_side, self.max_side, self.clip_frames = short_side, max_side, clip_frames
        self._sentences, self.threshold = sentences, threshold
        self._conventions = model.conventions
        self.programs = segment.programs(model)

    @classmethod
    @no_type_check  # checks its own arguments
    def from_workdir(
        cls, workdir: str | os.PathLike, checkpoint: str | int = 'best', config: ConfigDict | None = None
    ) -> 'Predictor':
        """The model that `train.py --workdir` trained.

        Args:
            workdir: of the run.
            checkpoint: 'best', 'latest' or a step, see checkpoints.Checkpoints.find.
            config: gives the sizes for evaluation; default: the run's own config.

        Raises:
            FileNotFoundError: there is no run or no such checkpoint; lists what is there.
            ValueError: if config.model differs from the run's model (names the fields); for a damaged workdir.
        """
        workdir = pathlib.Path(workdir)
        config = restore.check_model(config, workdir)
        model = systems.build_model(config.model)
        tokenizer = text.load_tokenizer(workdir / 'tokenizer.json')
        step, parameters = restore.restore_parameters(model, workdir, checkpoint, tokenizer)
        return cls.from_config(config, model, parameters, tokenizer, f'{workdir}, step {step}')

    @classmethod
    @no_type_check  # checks its own arguments
    def from_pretrained(cls, name: str | os.PathLike) -> 'Predictor':
        """The model in a model folder (convert/folder.py).

        Args:
            name: a folder; 'demo', the small model that comes with the package; or 'owner/name' on the Hugging Face
                Hub, which needs `pip install huggingface_hub` and, the first time, a network.

        Raises:
            FileNotFoundError: there is no such folder or model.
            ValueError: the folder is damaged; names the file.
            ConnectionError: the hub cannot be reached, or huggingface_hub is not installed.
        """
        stored = folder.read(pretrained.find(name))
        parameters = {path: jnp.asarray(x) for path, x in stored.parameters.items()}
        nested = traverse_util.unflatten_dict(parameters, sep='/')
        model = systems.build_model(stored.config.model)
        return cls.from_config(stored.config, model, nested, stored.tokenizer, stored.origin)

    def on(self, device: jax.Device) -> 'Predictor':
        """The same model on another device of this process."""
        other = copy.copy(self)
        other.parameters = jax.device_put(self.parameters, device)
        return other

    def save_pretrained(self, path: str | os.PathLike, licence: str = '') -> None:
        """Writes a model folder for `from_pretrained`; it must not exist, and appears whole or not at all.

        Args:
            licence: of the weights, for the model card, such as 'cc-by-nc-4.0'; '': not known.

        Raises:
            FileExistsError, OSError: the folder exists, or cannot be written.
            ValueError: this Predictor was made without a config.
        """
        if self.config is None or self.parameters is None:
            raise ValueError('this Predictor has no config or no parameters. Make it with one of the from_ methods.')
        flat = traverse_util.flatten_dict(self.parameters, sep='/')
        parameters = {name: np.asarray(x) for name, x in flat.items()}
        folder.write(folder.Model(self.config, parameters, self.tokenizer, self.origin), path, licence)

    @classmethod
    def from_weights(cls, config: ConfigDict) -> 'Predictor':
        """The model of config.model with the weights of config.init, such as the authors' released ones.

        Raises:
            FileNotFoundError: for missing weights or a missing tokenizer.
            ValueError: if the weights do not fit the model, or do not cover all of it.
        """
        configs.check(config)
        restore.check_init(config)
        model = systems.build_model(config.model)
        shapes = restore.parameter_shapes(model)
        found, report = weights.load(configs.paths(config.init), traverse_util.unflatten_dict(shapes, sep='/'))
        for line in report:
            logging.info('weights: %s', line)
        missing = sorted(set(shapes) - set(found))
        if missing:
            raise ValueError(
                f'config.init = {configs.paths(config.init)}: lacks {len(missing)} parameters, first '
                f'{missing[0]}. Give the weights of a whole model, or train first.'
            )
        tokenizer = restore.tokenizer_path(config)
        if tokenizer is None:
            raise ValueError('config.data.tokenizer is not set: give the folder with vocab.json and merges.txt.')
        parameters = {path: jnp.asarray(x, shapes[path].dtype) for path, x in found.items()}
        return cls.from_config(
            config,
            model,
            traverse_util.unflatten_dict(parameters, sep='/'),
            text.load_tokenizer(tokenizer),
            '; '.join(report),
        )

    @classmethod
    def from_config(
        cls,
        config: ConfigDict,
        model: nn.Module,
        parameters: Mapping | None,
        tokenizer: tokenizers.Tokenizer,
        origin: str = '',
    ) -> 'Predictor':
        """A predictor with the sizes of config.evaluation. parameters: None if they are set later."""
        return cls(
            model,
            parameters,
            tokenizer,
            text_length=config.data.text_length,
            origin=origin,
            config=config,
            threshold=config.evaluation.get('threshold', 0.0),  # model folders have none
            **{name: config.evaluation[name] for name in ('short_side', 'max_side', 'clip_frames', 'sentences')},
        )

    @no_type_check  # checks its own arguments
    def __call__(
        self, frames: UInt8[np.ndarray, 'T H W 3'] | Sequence[UInt8[np.ndarray, 'H W 3']], sentences: Sequence[str]
    ) -> Bool[np.ndarray, 'E T H W']:
        """Masks of all sentences in all frames.

        Args:
            frames: RGB, an array or a list of frames.
            sentences: a list of E sentences.

        Raises:
            TypeError, ValueError: for other frames or sentences, and for a sentence that is empty or too long.
            FloatingPointError: if the model's output is not finite, as with damaged weights.
        """
        self._check_sentences(sentences)
        frames = segment.check_frames(frames)
        found = np.zeros((len(sentences), *frames.shape[:3]), bool)
        for start, ask in self.windows(lambda window: frames[window.start : window.stop], len(frames)):
            for of_sentence, answer in zip(found, ask(sentences)):
                of_sentence[start : start + len(answer.scores)] = answer.masks(self.threshold)
        return found

    @no_type_check  # checks its own arguments
    def stream(
        self, frames: Iterable[UInt8[np.ndarray, 'H W 3']], sentences: Sequence[str], threshold: float | int = 0.0
    ) -> Iterator[Window]:
        """Segments a film of any length, window by window; memory does not grow with the length.

        Args:
            frames: RGB, one after the other, such as `frame.image for frame in video.stream(source)`.
            sentences: a list of 1 to 255 sentences.
            threshold: see `Answer.masks`.

        Yields:
            a `Window` of at most clip_frames frames.

        Raises:
            TypeError, ValueError, FloatingPointError: as `__call__`.
        """
        self._check_sentences(sentences)
        if len(sentences) > 255:
            raise ValueError(f'sentences: {len(sentences)}; at most 255 can be told apart in one map of objects.')
        frames, start = iter(frames), 0
        while group := list(itertools.islice(frames, self.clip_frames)):
            window = segment.check_frames(group)
            masks = np.zeros((len(sentences), *window.shape[:3]), bool)
            scores = np.zeros((len(sentences), len(window)), np.float32)
            owner, highest = np.zeros(window.shape[:3], np.uint8), np.zeros(window.shape[:3], np.float32)
            for number, answer in enumerate(self._window(window)(sentences)):
                logits = answer.logits  # fetched once, as it is resized for each fetch
                scores[number], masks[number] = answer.scores, (logits > 0) & answer.reaches(threshold)
                ahead = masks[number] & (logits > highest)
                owner[ahead], highest[ahead] = number + 1, logits[ahead]
            yield Window(start, window, masks, scores, owner)
            start += len(window)

    def _check_sentences(self, sentences: Any) -> None:
        if isinstance(sentences, str) or not isinstance(sentences, Sequence) or not len(sentences):
            raise TypeError(f'sentences = {sentences!r:.100}: must be a list of at least one sentence.')
        text.encode(self.tokenizer, sentences, self.text_length)

    def windows(self, read: Callable[[range], Frames], length: int) -> Iterator[tuple[int, Ask]]:
        """Iterates over a video of any length in windows of clip_frames frames, holding one window in memory.

        Windows do not overlap; the last one may be shorter. Each is segmented on its own, with its own best query. This
        is the protocol of Ref-DAVIS17 (36 frames); the videos of Ref-YouTube-VOS (at most 36 frames) stay whole.

        Args:
            read: function(frame indices) -> frames.
            length: T.

        Yields:
            the index of the window's first frame, and an `Ask` for its n frames.
        """
        for start in range(0, length, self.clip_frames):
            yield start, self._window(read(range(start, min(start + self.clip_frames, length))))

    def _window(self, frames: Frames) -> Ask:
        clip, video = self._encode_clip(frames)

        def ask(sentences: Sequence[str]) -> Iterator[Answer]:
            for group in segment.groups(sentences, self._sentences):
                every = self.programs.best_masks(self.parameters, video, self._tokens(group), clip.valid[:, :, 0, 0])
                for scores, logits, _ in zip(*every, group):

                    def fetch(binary: bool, logits: types.ArrayLike = logits) -> np.ndarray:
                        return self._resized(logits, clip, frames, binary)[: len(frames)]

                    yield Answer(np.asarray(scores)[: len(frames)], fetch)

        return ask

    def prepare(self, frames: Frames) -> types.Clip:
        """The clip of a window, resized and padded as the model wants it."""
        resized = clips.prepare_clip(frames, self.short_side, self.max_side)
        return segment.pad_clip(*resized, self._conventions, usual=self.short_side)

    def _encode_clip(
        self, frames: Frames, annotated: np.ndarray | None = None
    ) -> tuple[types.Clip, features.VideoFeatures]:
        clip = dataclasses.replace(self.prepare(frames), annotated=annotated)
        return clip, self.programs.encode(self.parameters, clip)

    def _tokens(self, sentences: Sequence[str]) -> types.Text:
        """Pads to an even number of sentences and a multiple of TOKENS, because every shape compiles a program."""
        count = len(sentences)
        tokens = text.encode(self.tokenizer, sentences, self.text_length, count if count == 1 else count + count % 2)
        longest = -(-int(tokens.valid.sum(1).max()) // TOKENS) * TOKENS
        return types.Text(tokens.tokens[:, :longest], tokens.valid[:, :longest])

    def _resized(self, logits: types.ArrayLike, clip: types.Clip, frames: Frames, binary: bool) -> np.ndarray:
        """Mask logits [T h w], resized to the frames; or whether they are above 0."""
        resized = self.programs.original_size(logits, segment.mask_size(clip, self._conventions), frames.shape[1:3])
        above, finite = self.programs.above_zero(resized)
        # NaN > 0 is false: the mask would silently be empty.
        if not finite:
            raise FloatingPointError(
                f'the mask logits are not finite; the weights ({self.origin}) are damaged, or too '
                'large for config.model.dtype.'
            )
        return np.asarray(above if binary else resized)

    def annotated(
        self, read: Callable[[np.ndarray], Frames], length: int, index: int
    ) -> Callable[[str], tuple[Float[np.ndarray, ' Q'], Bool[np.ndarray, 'Q H W']]]:
        """Segments one frame, with the clip_frames around it as context for the backbone (A2D-Sentences, JHMDB).

        Args:
            read: function(n frame indices) -> frames.
            length: T.
            index: of the frame.

        Returns:
            function(sentence) -> scores in [0, 1] and masks of every query.
        """
        indices, position = clips.annotated_window(
            index, length, self.clip_frames, self._conventions.annotated_in_the_middle
        )
        frames = read(indices)
        clip, video = self._encode_clip(frames, np.array([position], np.int32))

        def ask(sentence: str) -> tuple[np.ndarray, np.ndarray]:
            scores, logits = self.programs.every_mask(self.parameters, video, self._tokens([sentence]))
            if not self._conventions.cut_before_resizing:
                return np.asarray(scores), self._resized(logits, clip, frames, binary=True)
            size, cells = tuple(clip.size[0].tolist()), segment.mask_size(clip, self._conventions)
            # The release resizes RefCOCO's pictures on the grid of the stride-4 map, videos on that of the frame.
            grid = size if length > 1 else tuple(self._conventions.mask_stride * n for n in cells)
            return np.asarray(scores), np.asarray(self.programs.binary_at(logits, cells, grid, size, frames.shape[1:3]))

        return ask
