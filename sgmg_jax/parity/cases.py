"""Golden cases of the authors' releases: reading them, their weights, and helpers for all comparisons.

Weights are generated from the official tensors' names and a seed.

Axis letters: B clips, T frames, H W pixels, h w a feature map, C channels, Q queries, D decoder layers.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import pathlib
import re
import struct
from typing import Any
import zipfile
import zlib

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped
import numpy as np

from sgmg_jax import compilation, files, types
from sgmg_jax.convert import names as convert
from sgmg_jax.models import roberta, sgmg, video_swin
from sgmg_jax.ops import resize
from sgmg_jax.types import ArrayLike

Arrays = dict[str, np.ndarray]  # a case's, by name
Meaning = Mapping[str, Any]  # a case's JSON
Results = dict[str, ArrayLike | np.generic]  # ours, by the same names
Spreads = Mapping[str, tuple[float, bool]]

# Name (regular expression) -> scale of the official tensor's values, and whether it is divided by the root of the fan
# in.
SPREADS: Spreads = {
    r'.*(relative_position_bias_table|(word|position|token_type)_embeddings\.weight)': (0.5, False),
    r'.*(sampling_offsets\.bias|query_embed\.weight|level_embed|fq_pos\.weight)': (1, False),
    r'.*sampling_offsets\.weight': (0.5, True),
    r'controller.*\.layers\.2\..*': (0.05, True),
}
SOC_SPREADS: Spreads = {**SPREADS, r'controller.*\.layers\.2\..*': (0.2, True)}

# The release's settings: the names of ours that they correspond to; and the values of those that our model hard-codes.
ANY = ...  # has no effect here
BACKBONES = {
    'video_swin_t_p4w7': 'tiny',
    'video_swin_s_p4w7': 'small',
    'video_swin_b_p4w7': 'base',
    'video-swin-t': 'tiny',
    'video-swin-s': 'small',
    'video-swin-b': 'base',
}
Settings = tuple[Mapping[str, str], Mapping[str, Any]]
SWIN: Settings = (
    {'embed_dim': 'channels', 'depths': 'depths', 'num_heads': 'heads'},
    {
        'patch_size': [1, 4, 4],
        'window_size': [8, 7, 7],
        'mlp_ratio': 4,
        'qkv_bias': True,
        'qk_scale': None,
        'patch_norm': True,
        'drop_rate': ANY,
        'attn_drop_rate': ANY,
        'drop_path_rate': ANY,
        'use_checkpoint': ANY,
    },
)
ROBERTA: Settings = (
    {
        'vocab_size': 'vocabulary',
        'hidden_size': 'channels',
        'num_hidden_layers': 'layers',
        'num_attention_heads': 'heads',
        'intermediate_size': 'mlp',
        'max_position_embeddings': 'positions',
        'layer_norm_eps': 'epsilon',
    },
    {
        'type_vocab_size': 1,
        'pad_token_id': roberta.PADDING_ID,
        'hidden_act': 'gelu',
        'bos_token_id': ANY,
        'eos_token_id': ANY,
        'hidden_dropout_prob': ANY,
        'attention_probs_dropout_prob': ANY,
    },
)
LARGEST = 2**30  # bytes of all arrays of a case
HEADS = sgmg.SgMg.heads  # cannot be derived from a component's arrays


def fill(name: str, shape: Sequence[int], seed: int = 0, spreads: Spreads = SPREADS) -> Float[np.ndarray, '...']:
    """The golden cases' values of an official tensor.

    Args:
      name: in the release's state dict; both names of a shared box head give the same values.
      shape: in PyTorch's layout.
      seed: the case's.
      spreads: SPREADS, or SOC_SPREADS.

    Returns:
      float32 array of that shape.
    """
    name = convert.canonical_name(name)
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + seed))
    default = (1, True) if len(shape) > 1 else (0.1, False)
    scale, divided = next((spread for names, spread in spreads.items() if re.fullmatch(names, name)), default)
    if divided:
        scale /= np.sqrt(np.prod(shape[1:]))
    x = np.float32(scale) * generator.standard_normal(shape, dtype=np.float32)
    return 1 + x if len(shape) == 1 and name.endswith('weight') else x


def read(path: pathlib.Path) -> tuple[Arrays, dict[str, Any]]:
    """A case's arrays, from its npz, and its description, from its JSON.

    Raises:
        FileNotFoundError, ValueError: one of the two is missing, damaged, or too large when unpacked.
    """
    description = path.with_suffix('.json')
    for file in (path, description):
        if not file.exists():
            raise FileNotFoundError(f'{file.name} is missing; a case is an npz and a JSON with the same name')
        files.check_regular(file)
    return _read_arrays(path), {'case': path.stem} | read_json(description) | {'folder': path.parent}


def _read_arrays(path):
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > LARGEST:
            raise ValueError(f'unpacks to {size:,} bytes; the limit is {LARGEST:,}')
        with np.load(path) as arrays:
            return dict(arrays)
    # All that zipfile, zlib and NumPy raise.
    except (
        ValueError,
        LookupError,
        EOFError,
        MemoryError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        SyntaxError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
    ) as error:
        raise ValueError(f"{path}: is not a case's npz, or damaged ({str(error)[:200]}). Copy it again.") from error


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a case's JSON file. Raises as files.read_json, and ValueError if it holds anything else."""
    content = files.read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f'{path}: holds a {type(content).__name__}, not an object. Copy it again.')
    return content


def settings(
    config: Mapping[str, Any], field: str, renamed: Mapping[str, str], fixed: Mapping[str, Any]
) -> dict[str, Any]:
    """The release's settings -> ours.

    Raises:
        ValueError: names a setting that our model does not have.
    """
    ours: dict[str, Any] = {}
    for name, value in config.items():
        where = f'{field}.{name} = {value!r}'
        if name in renamed:
            value = tuple(value) if isinstance(value, list) else value
            if ours.setdefault(renamed[name], value) != value:
                raise ValueError(f'{where}: our model has one setting for this and another, {ours[renamed[name]]}')
        elif name not in fixed:
            raise ValueError(f'{where}: unknown; known are {", ".join([*renamed, *fixed])}')
        elif fixed[name] is not ANY and value != fixed[name]:
            raise ValueError(f'{where}: our model has only {fixed[name]!r}')
    return ours


def encoders(meaning: Meaning) -> tuple[tuple[video_swin.Size, roberta.Size], dict[str, Any]]:
    """The case's sizes of backbone and text encoder; and its other settings."""
    overrides = dict(meaning.get('config_overrides') or {})
    swin = settings(overrides.pop('swin_cfg', None) or {}, 'config_overrides.swin_cfg', *SWIN)
    text = settings(overrides.pop('roberta_cfg', None) or {}, 'config_overrides.roberta_cfg', *ROBERTA)
    named = re.search(r'_([tsb])_', meaning['case'])  # as in full_real_t_train
    backbone = meaning.get('backbone', named and f'video_swin_{named[1]}_p4w7')
    if backbone not in BACKBONES and len(swin) < len(SWIN[0]):
        raise ValueError(f'backbone = {backbone!r}: must be one of {", ".join(BACKBONES)}')
    return (
        dataclasses.replace(video_swin.SIZES[BACKBONES.get(backbone, 'tiny')], **swin),
        dataclasses.replace(roberta.SIZES['base'], **text),
    ), overrides


def component(
    at: str, module: nn.Module, meaning: Meaning, *inputs: Any, method: Callable | None = None
) -> tuple[dict[str, Any], Callable]:
    """One module alone, called with `inputs` (or its `method`); `at` is its path in the whole model.

    Returns:
      its parameters, nested as in the whole model; a function (parameters, *inputs, **options of Flax) -> its result.
    """
    shapes = jax.eval_shape(lambda key: module.init(key, *inputs, method=method)['params'], jax.random.key(0))
    for part in reversed(at.split('/')):
        shapes = {part: shapes}

    def apply(parameters, *inputs, **options):
        own = functools.reduce(dict.__getitem__, at.split('/'), parameters)
        return module.apply({'params': own}, *inputs, method=method, **options)

    return parameters(shapes, meaning), apply


def parameters(shapes: Mapping[str, Any], meaning: Meaning) -> dict[str, Any]:
    """Our parameters with these shapes, filled by their official names."""
    weights = meaning.get('weights', {})
    seed = meaning.get('fill_seed', weights.get('fill_seed'))
    if seed is None:
        raise ValueError('fill_seed: missing in the JSON, so the weights are unknown')
    official = convert.to_official(jax.tree.map(lambda x: np.broadcast_to(np.int8(0), x.shape), shapes))
    sizes = {name: x.shape for name, x in official.items() if name == convert.canonical_name(name)}
    soc = 'object_cluster' in shapes
    listed = weights.get('names')
    if isinstance(listed, (dict, list)):  # otherwise it is a sentence, and all names are used

        def named(x: dict | list) -> set[tuple]:
            return {
                (convert.canonical_name(name), *(x[name] if isinstance(x, dict) else ()))
                for name in x
                if not name.endswith('relative_position_index')
            }

        theirs, ours = named(listed), named(sizes if isinstance(listed, dict) else list(sizes))
        if theirs != ours:
            raise ValueError(
                f'weights.names: only in the JSON {sorted(theirs - ours)[:5]}, '
                f'only in our model {sorted(ours - theirs)[:5]}'
            )
    return convert.from_official(
        {
            name: fill(convert.soc_name(name) if soc else name, shape, seed, SOC_SPREADS if soc else SPREADS)
            for name, shape in sizes.items()
        },
        shapes,
    )


@contextlib.contextmanager
def recorded(*names: str) -> Iterator[dict[str, Any]]:
    """Records calls: yields a dict that maps the path of a module (or of its method) to the arguments and result of
    its last call."""
    calls: dict[str, Any] = {}

    def record(call, arguments, options, context):
        result = call(*arguments, **options)
        method = () if context.method_name == '__call__' else (context.method_name,)
        name = '/'.join((*context.module.path, *method))
        if name in names:
            calls[name] = arguments, result
        return result

    with nn.intercept_methods(record):
        yield calls


def with_gradients(
    function: Callable, cotangent: Any, parameters: Mapping[str, Any], *inputs: Any
) -> tuple[Any, Any, Results, list]:
    """Calls function(parameters, *inputs) -> (output, more) and differentiates (output * cotangent).sum().

    Returns:
      output, more, the parameters' gradients as {'grad/<official name>': ...}, the inputs' gradients.
    """

    def pull(cotangent, *arguments):
        output, pull_back, more = jax.vjp(function, *arguments, has_aux=True)
        return output, more, pull_back(cotangent)

    output, more, (to_parameters, *to_inputs) = jax.device_get(
        compilation.jit(pull)(cotangent, *jax.tree.map(jnp.asarray, (parameters, *inputs)))
    )
    return output, more, named('grad', convert.to_official(to_parameters)), to_inputs


def named(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {f'{prefix}/{name}': x for name, x in tensors.items()}


def last(x: Shaped[np.ndarray, '*batch C h w']) -> Shaped[np.ndarray, '*batch h w C']:
    """Moves channels last."""
    return np.moveaxis(x, -3, -1)


def first(x: Shaped[ArrayLike, '*batch h w C']) -> Shaped[np.ndarray, 'N C h w']:
    """Moves channels first and joins all leading axes."""
    return np.moveaxis(np.asarray(x).reshape(-1, *x.shape[-3:]), -1, -3)


def count(names: Collection[str], numbered: str) -> int:
    """How many of the numbered names there are, counting from 0 without a gap."""
    return next(i for i in range(len(names) + 1) if numbered.format(i) not in names)


def decoded(
    memory: Sequence[Float[ArrayLike, '_B _h _w C']],
    decoded: Sequence[Shaped[ArrayLike, '...']],
    start: Float[ArrayLike, 'Q 2'],
) -> Results:
    """The deformable transformer's outputs by the release's names; `start` are the queries' first references, as
    logits."""
    states, boxes, _ = decoded
    return {
        'hs': states,
        'inter_references': boxes,
        'init_reference': np.broadcast_to(jax.nn.sigmoid(start), (states.shape[1], *start.shape)),
        **{f'memory{i}': first(x) for i, x in enumerate(memory[:3])},
    }


def text(arrays: Arrays) -> types.Text:
    return types.Text(arrays['in/input_ids'].astype(np.int32), arrays['in/attention_mask'] == 1)


def clip(arrays: Arrays, multiple: int) -> types.Clip:
    """The case's clips, padded to their largest size, rounded up to a multiple."""
    videos = [last(arrays[f'in/video{i}']) for i in range(len(arrays['in/sizes']))]
    height, width = (-(-max(x.shape[axis] for x in videos) // multiple) * multiple for axis in (1, 2))
    frames = np.zeros((len(videos), len(videos[0]), height, width, 3), np.float32)
    valid = np.zeros(frames.shape[:4], bool)
    for i, video in enumerate(videos):
        frames[i, :, : video.shape[1], : video.shape[2]] = video
        valid[i, :, : video.shape[1], : video.shape[2]] = True
    return types.Clip(frames, valid, arrays['in/sizes'], arrays.get('in/valid_indices', arrays.get('in/valid_frame')))


def stages(calls: Mapping[str, Any], clip: types.Clip, arrays: Mapping[str, np.ndarray]) -> Results:
    """The model's intermediate results by the release's names."""
    (levels, masks, where, *_), memory = calls['transformer/encode']
    _, found = calls['transformer/decode']
    _, of_text = calls['encode_text']
    ours = {
        'text_word': of_text.words,
        'text_mask': ~of_text.valid,
        'text_sentence': of_text.sentence,
        **decoded(memory, found, calls['transformer/reference_points'][1]),
    }
    for i, (x, valid, position) in enumerate(zip(levels, masks, where)):
        ours |= {f'src{i}': first(x), f'srcmask{i}': ~valid, f'srcpos{i}': first(position)}
    for i, x in enumerate(calls['video_encoder'][1]):
        padding = ~resize.nearest(clip.valid, x.shape[2:4])
        # Only the number of frames shows whether the case includes the frames around the annotated ones.
        if clip.annotated is not None and len(arrays.get(f'out/backbone{i}', ())) == len(x):
            x, padding = (y[np.arange(len(y)), clip.annotated, None] for y in (x, padding))
        ours |= {f'backbone{i}': first(x), f'backbone_mask{i}': padding.reshape(-1, *padding.shape[2:])}
    return ours


def gradients(tensors: Mapping[str, np.ndarray]) -> Results:
    """Gradients by official name -> {'grad/..': ..., 'norm/..': ..., 'out/grad_total_norm': ...}."""
    norms = {name: np.sqrt(np.square(x, dtype=np.float64).sum()) for name, x in tensors.items()}
    total = np.sqrt(sum(norm**2 for name, norm in norms.items() if name == convert.canonical_name(name)))
    return named('grad', tensors) | named('norm', norms) | {'out/grad_total_norm': total}
