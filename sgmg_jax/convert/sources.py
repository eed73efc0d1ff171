"""Reads files with weights and recognises their model; renames their tensors to the names in names.py."""

from collections.abc import Callable, Mapping
import os
import pathlib
import re
from typing import Any, NamedTuple
import zlib

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from sgmg_jax import files
from sgmg_jax.convert import names, pth
from sgmg_jax.convert.names import ROBERTA, SOC_ROBERTA, SWIN

LARGEST = 2**28  # numbers in a tensor; the largest real one has 2 ** 26
LARGEST_FILE = 2**30  # numbers in all tensors of a file
LARGEST_HEADER = 2**22  # bytes; the models here have a hundred thousand
TIME_OFFSETS = 15  # 2 * 8 - 1: a 2-D bias table is repeated for every temporal offset
CHECKSUM = 'crc32 '  # prefix of a tensor's name in the metadata that weights.save writes
_TYPES = {
    'F64': '<f8',
    'F32': '<f4',
    'F16': '<f2',
    'BF16': ml_dtypes.bfloat16,
    'I64': '<i8',
    'I32': '<i4',
    'I16': '<i2',
    'I8': 'i1',
    'U8': 'u1',
    'BOOL': '?',
}

# Known files that are not weights, by their first bytes.
_OTHERS = {
    b'version https://git-lfs': 'a pointer of git-lfs instead of the file. Run `git lfs pull`, or download it',
    b'<': 'a web page or XML. Download the file again, from the link to the file itself',
    b'{': 'JSON. Give the file with the weights that it describes',
    b'\x1f\x8b': 'compressed by gzip. Unpack it first',
    b'\xfd7zXZ': 'compressed by xz. Unpack it first',
    b'BZh': 'compressed by bzip2. Unpack it first',
    b'\x28\xb5\x2f\xfd': 'compressed by zstd. Unpack it first',
    b'7z\xbc\xaf\x27\x1c': 'compressed by 7-Zip. Unpack it first',
    b'\x93NUMPY': "NumPy's .npy. Give a .pth or a .safetensors",
    b'\x89HDF': 'HDF5. Give a .pth or a .safetensors',
    b'\x80': 'a bare pickle, not a file of torch.save. Load it where it was made, and save its tensors as .safetensors',
}

# Parts of names that DataParallel, torch.compile, FSDP, activation checkpointing and Fabric insert.
_WRAPPERS = {'module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module', '_forward_module'}
_AVERAGE = re.compile(r'((?<![a-zA-Z])(ema|swa|avg|averaged?|shadow|polyak)|Ema|EMA|SWA)(?![a-z])')
_COUNT = 'n_averaged'  # a tensor that PyTorch's AveragedModel adds
# For each kind of model a name that only it has, after any prefix: SgMg or SOC, RoBERTa, Swin.
_WHOLE, _WORDS, _PATCH = (
    re.compile(r'((?:.*?\.)??)' + name, re.DOTALL)
    for name in (r'(?:voc\.)?query_embed\.weight', r'embeddings\.word_embeddings\.weight', r'patch_embed\.proj\.weight')
)


class Weights(NamedTuple):
    """The weights in a file.

    kind: of model, in words. tensors: official name -> array, or anything with a shape that np.asarray takes. parts:
    our top-level modules that it must cover, None for all. called: official name -> name in the file. notes: for the
    user, on what was used and what was left out.
    """

    kind: str
    tensors: dict[str, Any]
    parts: tuple[str, ...] | None
    called: dict[str, str]
    notes: tuple[str, ...]


class _Later(NamedTuple):
    """An array that is computed on use, after its shape was compared with the model's."""

    shape: tuple[int, ...]
    compute: Callable[[], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.compute()


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors in a PyTorch file (.pth, .pt, .bin, .ckpt) or a .safetensors: name -> read-only array.

    The content determines the format, not the suffix. Arrays are views of the memory-mapped file. Checksums are
    compared if the file has them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another format (names it), is damaged, or claims tensors of absurd sizes.
    """
    path = pathlib.Path(path)
    try:
        files.check_regular(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such file. Give a .pth or a .safetensors with weights.') from error
    with open(path, 'rb') as file:
        start = file.read(512)
    other = next((what for begin, what in _OTHERS.items() if start.lstrip().startswith(begin)), None)
    try:
        if start[5:9] == b'\0\0\0{' or not start and path.suffix == '.safetensors':
            tensors = _read_safetensors(path)
        elif other and not pth.is_checkpoint(start):
            raise ValueError(f'is {other}.')
        elif path.suffix == '.safetensors' and not pth.is_checkpoint(start):
            raise ValueError('not a whole safetensors file. Download or write it again.')
        else:
            tensors = pth.state_dict(path)
            _check_sizes(tensors)
        return tensors
    except ValueError as error:
        raise ValueError(error if str(error).startswith(str(path)) else f'{path}: {error}') from error


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    with open(path, 'rb') as file:
        size = int.from_bytes(file.read(8), 'little')
        if size > LARGEST_HEADER:
            raise ValueError(
                f'its header claims {size:,} bytes; at most {LARGEST_HEADER:,} are read. Is it the right file?'
            )
        header = file.read(size)
    try:
        with safe_open(path, 'numpy') as whole:  # checks the header against the file; reads no tensor
            metadata = whole.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f'not a whole safetensors file ({files.printable(str(error))[:200]}). Download or write it again.'
        ) from error
    memory = np.asarray(np.memmap(path, np.uint8, 'r'))[8 + size :]
    tensors: dict[str, np.ndarray] = {}
    for name, entry in files.parse_json(header, path).items():  # refuses duplicate names
        if name == '__metadata__':
            continue
        if entry['dtype'] not in _TYPES:
            raise ValueError(
                f'{_shown(name)} is of type {entry["dtype"]}; only {", ".join(_TYPES)} are read. '
                'Convert it to one of them.'
            )
        begin, end = entry['data_offsets']
        tensors[name] = memory[begin:end].view(_TYPES[entry['dtype']]).reshape(entry['shape'])
    _check_sizes(tensors)
    for name, x in tensors.items():
        if CHECKSUM + name in metadata and metadata[CHECKSUM + name] != f'{crc32(x):08x}':
            raise ValueError(
                f'{_shown(name)} is damaged: its checksum is not the one that was written. Copy the file '
                'again, or write it again.'
            )
    return tensors


def crc32(x: np.ndarray) -> int:
    """The checksum of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)


def _check_sizes(tensors: Mapping[str, np.ndarray]) -> None:
    """Checks sizes: an expanded tensor, or a sparse file, claims any size in a few bytes."""
    for name, x in tensors.items():
        if x.size > LARGEST:
            raise ValueError(f'{_shown(name)} has shape {x.shape}: more numbers than in any of these models.')
    total = sum(x.size for x in tensors.values())
    if total > LARGEST_FILE:
        raise ValueError(f'its {len(tensors)} tensors have {total:,} numbers, more than any of these models.')


def recognise(tensors: Mapping[str, np.ndarray]) -> Weights:
    """Recognises the tensors of known checkpoints.

    * SgMg or SOC as released. Box heads have two names; index tables and position ids are left out.
    * Video Swin pretrained on Kinetics (names start with `backbone.`; a classifier follows): the two frames of a patch
      are summed, because SgMg's patches are one frame deep.
    * Swin pretrained on images: the patch embedding and the bias tables get a time axis.
    * RoBERTa of Hugging Face, with or without the prefix `roberta.` and a pooler.

    Insertions of wrappers in names are ignored. Any other common prefix of a model's names is removed, and tensors
    outside the model are left out and noted. Of a model and its moving average the model is used, as in the authors'
    evaluation.

    Raises:
        ValueError: for anything else, for a tensor of absurd size, for several models, and if the two copies of a box
            head differ.
    """
    tensors = {name: np.asarray(x) for name, x in tensors.items()}
    _check_sizes(tensors)
    bare = _renamed(
        tensors,
        {name: name for name in tensors},
        lambda name: '.'.join(part for part in name.split('.') if part not in _WRAPPERS),
    )
    for marker in (_WHOLE, _WORDS, _PATCH):
        places = {match[1]: there for name, there in bare.items() if (match := marker.fullmatch(name))}
        if places:
            break
    else:
        raise ValueError(
            f'not the weights of a known model (SgMg, SOC, Video Swin, Swin, RoBERTa). It has '
            f'{len(tensors)} tensors: {", ".join(map(_shown, sorted(tensors)[:5]))} ...'
        )
    place, *notes = _choose(places, bare)
    others = tuple(other for other in places if other != place and other.startswith(place))
    own = {
        name.removeprefix(place): there
        for name, there in bare.items()
        if name.startswith(place) and not name.startswith(others) and name != place + _COUNT
    }
    beside = {name: there for name, there in bare.items() if not name.startswith(tuple(places))}
    lost = next((there for name, there in beside.items() if names.targets(name)), None)
    if lost:
        raise ValueError(
            f'{_shown(lost)} is of SgMg or SOC, but not in the same place as {_shown(places[place])}: the '
            'model is not whole, or its names have different prefixes.'
        )

    parts: tuple[str, ...] | None = None
    change: Callable[[str, np.ndarray], Any] = lambda name, x: x
    rename: Callable[[str], str | None]
    if marker is _WHOLE:
        soc = 'voc.query_embed.weight' in own
        kind, rename = 'SOC' if soc else 'SgMg', lambda name: _of_whole(name, soc)
    elif marker is _WORDS:
        kind, parts, rename = 'RoBERTa', ('text_backbone',), _of_roberta
        beside = {name: there for name, there in beside.items() if 'lm_head.' not in name}
    else:
        image = tensors[own['patch_embed.proj.weight']].ndim == 4
        kind = 'Swin of images, inflated' if image else 'Video Swin, patches summed over time'
        parts, rename, change = ('video_encoder',), _of_swin, lambda name, x: _one_frame_deep(name, x, image)
        beside = {name: there for name, there in beside.items() if 'cls_head.' not in name}
    if beside:
        notes.append(
            f'{len(beside)} tensors outside the model are left out, such as {_shown(next(iter(beside.values())))}'
        )
    called = _renamed(tensors, own, rename)
    return Weights(
        kind, {name: change(name, tensors[there]) for name, there in called.items()}, parts, called, tuple(notes)
    )


def _renamed(
    tensors: Mapping[str, np.ndarray], called: Mapping[str, str], rename: Callable[[str], str | None]
) -> dict[str, str]:
    """New name -> name in the file, where `rename` does not return None. Several names may become one if their tensors
    are equal."""
    found: dict[str, str] = {}
    for old, there in called.items():
        name = rename(old)
        if name is None:
            continue
        if not _same(tensors[found.setdefault(name, there)], tensors[there]):
            raise ValueError(
                f'{_shown(there)} differs from {_shown(found[name])}. In a whole model these are one '
                'tensor with two names; this checkpoint has several models, another one, or is damaged.'
            )
    return found


def _same(x: np.ndarray, y: np.ndarray) -> bool:
    if x is y:
        return True
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    return x.__array_interface__ == y.__array_interface__ or np.array_equal(x, y, equal_nan=x.dtype.kind in 'fc')


def _choose(places: Mapping[str, str], names: Mapping[str, str]) -> list[str]:
    """Chooses one of several models: the prefix of its names, and a note if another was left out."""
    averages = {
        place: there for place, there in places.items() if _AVERAGE.search(place) or f'{place}{_COUNT}' in names
    }
    models = {place: there for place, there in places.items() if place not in averages}
    if len(models or averages) > 1:
        raise ValueError(
            f'holds several models: '
            f'{", ".join(map(_shown, sorted((models or averages).values())[:5]))}. Save the state dict of '
            'one of them in a separate file.'
        )
    place, there = next(iter((models or averages).items()))
    if not models:
        return [place, f'these are a moving average ({_shown(there)}); the file has no other weights']
    if not averages:
        return [place]
    return [
        place,
        f"the model itself ({_shown(there)}) is used, as in the authors' evaluation, and not its moving "
        f'average ({_shown(next(iter(averages.values())))}). To use that, save its state dict in a separate '
        'file',
    ]


def _of_whole(name: str, soc: bool) -> str | None:
    if name.endswith(('relative_position_index', 'embeddings.position_ids')):
        return None
    return names.canonical_name(re.sub(f'^{re.escape(SOC_ROBERTA)}', ROBERTA, name) if soc else name)


def _of_roberta(name: str) -> str | None:
    if name.startswith('lm_head.') or name.endswith('position_ids'):
        return None
    for old, new in (('gamma', 'weight'), ('beta', 'bias')):  # the names in TensorFlow's files
        name = re.sub(rf'LayerNorm\.{old}$', f'LayerNorm.{new}', name)
    return ROBERTA + name


def _of_swin(name: str) -> str | None:
    if re.match(r'(norm|head|cls_head)\.', name) or name.endswith(('_index', 'attn_mask')):
        return None
    return SWIN + re.sub(r'^layers\.(\d)\.downsample\.', r'downsamples.\1.', name)


def _one_frame_deep(name: str, x: np.ndarray, image: bool) -> np.ndarray | _Later:
    """Adapts Swin to patches of one frame. Computes nothing yet: a few bytes can claim tensors of any size."""
    if name == SWIN + 'patch_embed.proj.weight':
        if image:
            return x[:, :, None]
        return _Later((*x.shape[:2], 1, *x.shape[3:]), lambda: x.sum(axis=2, keepdims=True))
    if image and name.endswith('relative_position_bias_table') and x.ndim == 2:
        return _Later((TIME_OFFSETS * len(x), x.shape[1]), lambda: np.tile(x, (TIME_OFFSETS, 1)))
    return x


def _shown(name: str) -> str:
    """A name from a file, safe to print."""
    return files.printable(name[:100])
