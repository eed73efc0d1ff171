"""A model as programs in StableHLO, which run with JAX alone, on CPUs, GPUs and TPUs.

There are two programs, because a video is encoded once and asked many times: VIDEO makes features of frames, SEGMENT
makes masks of features and a sentence's tokens. Weights are their first argument. Inside the programs they would be
constants: both files would hold them, and each would take longer to load and to compile.

Arguments and results are arrays and dictionaries of arrays, whose entries JAX orders by name; a user of the programs
has none of this package's types. Frames are given as they are read, uint8: the first program normalises and masks.

Axis letters: T frames, n of them real, H W pixels, h w a feature map, E sentences, L tokens, C channels.
"""

from collections.abc import Callable, Mapping, Sequence
import errno
import functools
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from flax import linen as nn
from flax import traverse_util
import jax
from jax import export
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8
import numpy as np

import sgmg_jax
from sgmg_jax import compilation, files, types
from sgmg_jax.convert import weights
from sgmg_jax.data import clips, text
from sgmg_jax.inference import segment
from sgmg_jax.inference.predictor import Predictor
from sgmg_jax.models import features, soc

VIDEO, SEGMENT = 'video.stablehlo', 'segment.stablehlo'
WEIGHTS, DESCRIPTION, EXAMPLE = 'weights.safetensors', 'export.json', 'run.py'
PLATFORMS = 'cpu', 'cuda', 'tpu'
FORMAT = 1  # of export.json
USUAL = 720, 1280  # pixels of a frame, whose resized and padded size is the default
FEWEST_TOKENS = 3  # <s>, a word, </s>
# Largest error allowed, as a fraction of the largest value: rounding, which differs with what is fused.
TOLERANCES = {'float32': 1e-3, 'bfloat16': 0.1}


class Error(NamedTuple):
    """The largest error of a result, and the largest absolute value of the model itself."""

    error: float
    largest: float


Arrays = Mapping[str, Shaped[types.ArrayLike, '...']]


class Sizes(NamedTuple):
    """Static sizes of the programs: T, H, W, E, L; T, H and W with padding."""

    frames: int
    height: int
    width: int
    sentences: int
    tokens: int


def sizes_of(
    predictor: Predictor,
    frames: int | None = None,
    size: Sequence[int] | None = None,
    sentences: int = 1,
    tokens: int | None = None,
) -> Sizes:
    """The sizes asked for, where None is the predictor's own.

    Args:
        frames: processed together; default and maximum: the predictor's clip_frames. Padded as Predictor pads clips.
        size: H, W of the resized and padded frames; default: those of a USUAL frame.
        sentences: E, processed together.
        tokens: L; default and maximum: the predictor's text_length.

    Raises:
        ValueError: naming the option: too many frames or tokens, or a size that is not padded as this model needs.
    """
    conventions = predictor.model.conventions
    frames, tokens = frames or predictor.clip_frames, tokens or predictor.text_length
    if frames > predictor.clip_frames:
        raise ValueError(
            f'--frames={frames}: the model processes at most {predictor.clip_frames} frames together '
            '(config.evaluation.clip_frames). Give fewer, and cut longer videos into windows.'
        )
    if not FEWEST_TOKENS <= tokens <= predictor.text_length:
        raise ValueError(
            f'--tokens={tokens}: must be from {FEWEST_TOKENS}, <s> and </s> with a word between them, to '
            f'{predictor.text_length} (config.data.text_length).'
        )
    if size is None:
        size = _padded(clips.resized_size(*USUAL, predictor.short_side, predictor.max_side), conventions.pixels)
    elif tuple(size) != _padded(size, conventions.pixels):
        nearest = ' '.join(map(str, _padded(size, conventions.pixels)))
        raise ValueError(
            f'--size {size[0]} {size[1]}: must be multiples of {conventions.pixels}, to which this model pads frames. '
            f'Give --size {nearest}.'
        )
    clips.check_size(*size)
    (frames,) = _padded([frames], conventions.frames if frames > 1 else 1)
    return Sizes(frames, size[0], size[1], sentences, tokens)


def _padded(numbers, multiple):
    return tuple(-(-number // multiple) * multiple for number in numbers)


def encode_video(
    model: nn.Module,
    parameters: Arrays,
    frames: UInt8[types.ArrayLike, 'T H W 3'],
    count: Int[types.ArrayLike, ''],
    size: Int[types.ArrayLike, '2'],
) -> dict[str, types.ArrayLike]:
    """The first program: everything that does not depend on the sentence.

    Args:
        parameters: path -> array.
        frames: RGB, resized; what they hold beyond `count` and `size` does not matter.
        count: n, real frames.
        size: real pixels, height and width.

    Returns:
        level_0, .. and valid_0, ..: maps [1 T h w C] of strides 8, 16, 32 (and 64) and their masks; stride_4, stride_8:
        the backbone's first two maps; size [1 2].
    """
    inside = [jnp.arange(n) < real for n, real in zip(frames.shape, (count, size[0], size[1]))]
    valid = inside[0][:, None, None] & inside[1][:, None] & inside[2]
    clip = types.Clip(frames[None], valid[None], size[None])
    video: features.VideoFeatures = model.apply(  # type: ignore[assignment]  # without `mutable`, what the method does
        {'params': traverse_util.unflatten_dict(dict(parameters), sep='/')}, clip, method='encode_video'
    )
    numbered = {'level': video.levels, 'valid': video.valid}
    return {f'{name}_{i}': x for name, maps in numbered.items() for i, x in enumerate(maps)} | {
        'stride_4': video.stride4,
        'stride_8': video.stride8,
        'size': video.size,
    }


def segment_sentences(
    model: nn.Module,
    parameters: Arrays,
    video: Arrays,
    tokens: Int[types.ArrayLike, 'E L'],
    valid: Bool[types.ArrayLike, 'E L'],
) -> dict[str, Float[Array, 'E T *pixels']]:
    """The second program: the best query for each sentence.

    Args:
        parameters: path -> array.
        video: of `encode_video`.
        tokens, valid: see types.Text.

    Returns:
        mask_logits [E T H W], of SOC at stride 4; scores [E T], from 0 to 1.
    """
    levels, masks = (
        tuple(video[name] for name in sorted(video) if name.startswith(kind)) for kind in ('level_', 'valid_')
    )
    found = features.VideoFeatures(levels, masks, video['stride_4'], video['stride_8'], video['size'])
    nested = traverse_util.unflatten_dict(dict(parameters), sep='/')
    # A frame is real if its first pixel is.
    scores, logits = segment.best_masks(model, nested, found, types.Text(tokens, valid), masks[0][:, :, 0, 0])
    return {'mask_logits': logits, 'scores': scores}


def export_model(
    model: nn.Module, parameters: Arrays, sizes: Sizes, platforms: Sequence[str] = PLATFORMS
) -> dict[str, export.Exported]:
    """VIDEO and SEGMENT, each for all of these platforms, with the precision of compilation.jit.

    Raises:
        ValueError: the model takes no frames of this size.
    """
    shaped = jax.ShapeDtypeStruct
    given = {name: shaped(x.shape, x.dtype) for name, x in parameters.items()}

    def exported(function: Callable, *arguments: Any) -> export.Exported:
        program = compilation.jit(compilation.for_any_platform(functools.partial(function, model)))
        return export.export(program, platforms=platforms)(given, *arguments)

    frames = shaped((*sizes[:3], 3), jnp.uint8)
    video = exported(encode_video, frames, shaped((), jnp.int32), shaped((2,), jnp.int32))
    maps = jax.tree.map(lambda x: shaped(x.shape, x.dtype), jax.tree.unflatten(video.out_tree, video.out_avals))
    words = shaped((sizes.sentences, sizes.tokens), jnp.int32)
    return {VIDEO: video, SEGMENT: exported(segment_sentences, maps, words, shaped(words.shape, jnp.bool))}


def describe(predictor: Predictor, sizes: Sizes, programs: Mapping[str, export.Exported]) -> dict[str, Any]:
    """The content of export.json. `inputs` are in the order of the program's main function, which has no weights that
    it does not use; a program for several platforms begins with the index of the platform."""
    conventions = predictor.model.conventions
    arguments = {VIDEO: ('weights', 'frames', 'count', 'size'), SEGMENT: ('weights', 'features', 'tokens', 'valid')}
    masks = jax.tree.unflatten(programs[SEGMENT].out_tree, programs[SEGMENT].out_avals)['mask_logits']

    def signature(name: str, program: export.Exported) -> dict[str, list[str]]:
        given, _ = jax.tree.unflatten(program.in_tree, program.in_avals)
        # One argument at a time: in one dictionary JAX would order them by name.
        named = [line for part in zip(arguments[name], given) for line in _named(dict([part]))]
        several = len(program.platforms) > 1
        return {
            'inputs': ['platform_index int32[]'] * several + [named[i] for i in program.module_kept_var_idx],
            'outputs': _named(jax.tree.unflatten(program.out_tree, program.out_avals)),
        }

    return {
        'format': FORMAT,
        'model': type(predictor.model).__name__,
        'origin': predictor.origin,
        'sgmg_jax': sgmg_jax.__version__,
        'jax': jax.__version__,
        'calling_convention_version': programs[VIDEO].calling_convention_version,
        'platforms': list(programs[VIDEO].platforms),
        'matmul_precision': jax.config.jax_default_matmul_precision or 'float32',  # type: ignore[attr-defined]
        'programs': list(programs),
        'frames': [*sizes[:3], 3],
        'fewest_frames': max(1, sizes.frames - conventions.frames + 1),
        'tokens': [sizes.sentences, sizes.tokens],
        'padding_token': text.PAD,
        'mask_stride': _stride(sizes.height, masks.shape[2]),
        'resized': {
            'short_side': predictor.short_side,
            'max_side': predictor.max_side,
            'filter': "bilinear, antialiased, as Pillow's",
        },
        'normalised_by_the_program': {'mean': features.MEAN, 'std': features.STD, 'of': 'RGB / 255'},
        'signatures': {name: signature(name, program) for name, program in programs.items()},
    }


def _stride(height, of_mask):
    return 1 if of_mask == height else soc.MASK_STRIDE


def _named(tree):
    """'name dtype[shape]' of each array, in JAX's order."""
    return [
        f'{jax.tree_util.keystr(path, simple=True, separator=".")} {x.dtype}[{",".join(map(str, x.shape))}]'
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    ]


def write(
    predictor: Predictor,
    folder: str | os.PathLike,
    sizes: Sizes,
    platforms: Sequence[str] = PLATFORMS,
    log: Callable[[str], None] = print,
) -> dict[str, Error]:
    """Writes a folder with the programs, the weights, the tokenizer, export.json and run.py; runs it in a process
    without this package, and compares with the model. The folder appears whole or not at all.

    Args:
        folder: must not exist, or be empty.
        platforms: of PLATFORMS, with 'cpu', where the programs are run.
        log: called with a line after each step.

    Returns:
        the errors of mask_logits and of scores.

    Raises:
        ValueError: without 'cpu'; the model takes no such frames; an error above TOLERANCES.
        FileExistsError: the folder exists and is not empty.
        OSError: it cannot be written, or run.
    """
    if 'cpu' not in platforms:
        raise ValueError(
            f'--platforms {" ".join(platforms)}: must include cpu, where the programs are checked. Add it.'
        )
    folder = check_out(folder)
    parameters = {name: np.asarray(x) for name, x in traverse_util.flatten_dict(predictor.parameters, sep='/').items()}
    with files.new_folder(folder) as partial:
        begun = time.monotonic()
        programs = export_model(predictor.model, parameters, sizes, platforms)
        log(f'exported for {", ".join(platforms)} in {time.monotonic() - begun:.1f} s')
        for name, program in programs.items():
            (partial / name).write_bytes(program.serialize())
        weights.save(parameters, partial / WEIGHTS)
        text.save_tokenizer(predictor.tokenizer, partial)
        (partial / DESCRIPTION).write_text(json.dumps(describe(predictor, sizes, programs), indent=2) + '\n')
        shutil.copyfile(pathlib.Path(__file__).with_name(EXAMPLE), partial / EXAMPLE)
        begun = time.monotonic()
        errors = compare(predictor, partial, sizes)
        log(f'run without sgmg_jax, and compared, in {time.monotonic() - begun:.1f} s')
    return errors


def check_out(folder: str | os.PathLike) -> pathlib.Path:
    """The absolute path of a folder that is new or empty; raises as files.check_new otherwise."""
    path = pathlib.Path(os.path.realpath(folder))
    return path if path.is_dir() and not any(path.iterdir()) else files.check_new(path)


def compare(predictor: Predictor, folder: pathlib.Path, sizes: Sizes) -> dict[str, Error]:
    """Runs an exported folder on a CPU, in a process of its own, with random frames, some of them and of their pixels
    padding; returns the errors of mask_logits and of scores on real pixels.

    Raises:
        ValueError: an error is above TOLERANCES.
        ChildProcessError: the process failed; with the last line that it wrote.
    """
    conventions = predictor.model.conventions
    padding = segment.multiple_of([side - conventions.shared // 2 for side in sizes[1:3]], conventions) // 2
    height, width = (side - padding for side in sizes[1:3])
    count = sizes.frames - (conventions.frames > 1 < sizes.frames)
    frames = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)
    # At most two tokens each, whatever the tokenizer has learnt.
    letters = [chr(ord('a') + i) for i in range(max(1, min(26, sizes.tokens // 2 - 1)))]
    sentences = [' '.join(letters[i % len(letters) :]) for i in range(sizes.sentences)]
    wanted = _by_the_model(predictor, frames, sentences, sizes)
    found = _in_a_process_of_its_own(folder, frames, sentences)
    errors = {}
    for name, values in wanted.items():
        error, largest = (float(np.abs(x).max()) for x in (found[name] - values, values))
        allowed = TOLERANCES[jnp.dtype(predictor.model.dtype).name] * largest
        if not error <= allowed:  # also if it is NaN
            raise ValueError(
                f'{name} of the exported program differ from the model by {error:.3g}, at most {allowed:.3g} is '
                'rounding. Please report this with your version of jax.'
            )
        errors[name] = Error(error, largest)
    return errors


def _by_the_model(predictor, frames, sentences, sizes):
    model, parameters = predictor.model, predictor.parameters
    clip = segment.pad_clip(frames, frames.shape[1:3], model.conventions)
    tokens = text.encode(predictor.tokenizer, sentences, sizes.tokens)
    video = compilation.jit(lambda p, clip: model.apply({'params': p}, clip, method='encode_video'))(parameters, clip)
    ask = compilation.jit(functools.partial(segment.best_masks, model))
    scores, logits = map(np.asarray, ask(parameters, video, tokens, clip.valid[:, :, 0, 0]))
    stride = _stride(sizes.height, logits.shape[2])
    height, width = (math.ceil(side / stride) for side in frames.shape[1:3])
    return {'mask_logits': logits[:, : len(frames), :height, :width], 'scores': scores[:, : len(frames)]}


def _in_a_process_of_its_own(folder, frames, sentences):
    with tempfile.TemporaryDirectory() as scratch:
        given, written = (os.path.join(scratch, name) for name in ('frames.npy', 'answers.npz'))
        np.save(given, frames)
        command = [sys.executable, os.fspath(folder / EXAMPLE), given, written, *sentences]
        environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
        ended = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True)
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or [f'exit status {ended.returncode}'])[-1]
            raise ChildProcessError(errno.ECHILD, f'the exported {EXAMPLE} failed: {last:.500}')
        with np.load(written) as answers:
            return dict(answers)
