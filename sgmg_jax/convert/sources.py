"""Files with weights: which model a file is of, and its tensors under the names that names.py knows."""
from collections.abc import Callable, Mapping
import os
import pathlib
import re
from typing import NamedTuple
import zlib

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from sgmg_jax import files
from sgmg_jax.convert import names, pth
from sgmg_jax.convert.names import ROBERTA, SOC_ROBERTA, SWIN

LARGEST = 2 ** 28  # numbers in a tensor; the largest there is has 2 ** 26
LARGEST_FILE = 2 ** 30  # numbers in all tensors of a file
LARGEST_HEADER = 2 ** 22  # bytes; of a model here a hundred thousand
TIME_OFFSETS = 15  # 2 * 8 - 1: rows of a 2-D bias table are repeated for every distance in time
CHECKSUM = 'crc32 '  # before a tensor's name, in the metadata of what weights.save writes
_TYPES = {'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BF16': ml_dtypes.bfloat16, 'I64': '<i8', 'I32': '<i4',
          'I16': '<i2', 'I8': 'i1', 'U8': 'u1', 'BOOL': '?'}

# What is known of files that begin so, and is no weights.
_OTHERS = {
    b'version https://git-lfs': 'a pointer of git-lfs, in place of the file. Run `git lfs pull`, or download it',
    b'<': 'a web page or XML. Download the file again, by the link that gives the file itself',
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

# Parts of names that DataParallel, torch.compile, FSDP, activation checkpointing and Fabric put between others.
_WRAPPERS = {'module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module', '_forward_module'}
_AVERAGE = re.compile(r'((?<![a-zA-Z])(ema|swa|avg|averaged?|shadow|polyak)|Ema|EMA|SWA)(?![a-z])')
_COUNT = 'n_averaged'  # a tensor that AveragedModel of PyTorch has beside the model's
# A name that only one kind of model has, whatever stands before it: of SgMg and SOC, RoBERTa, Swin.
_WHOLE, _WORDS, _PATCH = (re.compile(r'((?:.*?\.)??)' + name, re.DOTALL) for name in (
    r'(?:voc\.)?query_embed\.weight', r'embeddings\.word_embeddings\.weight', r'patch_embed\.proj\.weight'))


class Weights(NamedTuple):
    """What a file holds.

    kind: of model, in words. tensors: official name -> array, or what becomes one by np.asarray and has its shape.
    parts: the top-level parameters of ours that it must fill, None for all. called: official name -> name in the file.
    notes: sentences for the user, on what was taken and what was left out.
    """
    kind: str
    tensors: dict[str, np.ndarray]
    parts: tuple[str, ...] | None
    called: dict[str, str]
    notes: tuple[str, ...]


class _Later(NamedTuple):
    """An array that is computed when it is asked for: after its shape was compared with the model's."""
    shape: tuple[int, ...]
    compute: Callable[[], np.ndarray]

    def __array__(self, dtype=None, copy=None):
        return self.compute()


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a file of PyTorch (.pth, .pt, .bin, .ckpt) or a .safetensors: name -> read-only array.

    The file's content tells which it is, not its ending. Arrays are parts of the file mapped into memory. Checksums are
    compared where the file has them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such file, is damaged, or claims tensors of absurd sizes; says what it is instead.
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


def _read_safetensors(path):
    with open(path, 'rb') as file:
        size = int.from_bytes(file.read(8), 'little')
        if size > LARGEST_HEADER:
            raise ValueError(f'its header claims {size:,} bytes, at most {LARGEST_HEADER:,} are read. Is it the right '
                             'file?')
        header = file.read(size)
    try:
        with safe_open(path, 'numpy') as whole:  # compares the header with the file, and reads no tensor
            metadata = whole.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f'not a whole safetensors file ({files.printable(str(error))[:200]}). Download or write it '
                         'again.') from error
    memory, tensors = np.asarray(np.memmap(path, np.uint8, 'r'))[8 + size:], {}
    for name, entry in files.parse_json(header, path).items():  # which refuses a name that is there twice
        if name == '__metadata__':
            continue
        if entry['dtype'] not in _TYPES:
            raise ValueError(f'{_shown(name)} is of type {entry["dtype"]}, only {", ".join(_TYPES)} are read. '
                             'Convert it to one of them.')
        begin, end = entry['data_offsets']
        tensors[name] = memory[begin:end].view(_TYPES[entry['dtype']]).reshape(entry['shape'])
    _check_sizes(tensors)
    for name, x in tensors.items():
        if CHECKSUM + name in metadata and metadata[CHECKSUM + name] != f'{crc32(x):08x}':
            raise ValueError(f'{_shown(name)} is damaged: its checksum is not the one that was written. Copy the file '
                             'again, or write it again.')
    return tensors


def crc32(x: np.ndarray) -> int:
    """The checksum of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(x).reshape(-1).view(np.uint8))


def _check_sizes(tensors):
    """An expanded tensor claims any size in a few bytes of its file, and so does a sparse file."""
    for name, x in tensors.items():
        if x.size > LARGEST:
            raise ValueError(f'{_shown(name)} has shape {x.shape}, more numbers than any of these models.')
    total = sum(x.size for x in tensors.values())
    if total > LARGEST_FILE:
        raise ValueError(f'its {len(tensors)} tensors have {total:,} numbers, more than any of these models.')


def recognise(tensors: Mapping[str, np.ndarray]) -> Weights:
    """Tensors of any of the known checkpoints -> Weights.

    * SgMg, or SOC, as released. Box heads are stored under two names; index tables and position ids are known and left
      out (spec: state dict).
    * Video Swin pretrained on Kinetics (`backbone.` before every name, a classifier after): the two
      frames of a patch are summed, since SgMg's patches are one frame deep.
    * Swin pretrained on images: a patch and a bias table are given a time axis.
    * RoBERTa of Hugging Face, with or without `roberta.` before every name, with or without a pooler.

    What wrappers put into names is ignored. Whatever else stands before all names of a model is left out, with the
    tensors beside the model; that is noted. Of a model and a moving average of it, the model is taken, as the authors
    evaluate it.

    Raises:
        ValueError: for anything else, for a tensor of absurd size, for several models, and if the two copies of a box
            head differ.
    """
    tensors = {name: np.asarray(x) for name, x in tensors.items()}
    _check_sizes(tensors)
    bare = _renamed(tensors, {name: name for name in tensors}, lambda name: '.'.join(
        part for part in name.split('.') if part not in _WRAPPERS))
    for marker in (_WHOLE, _WORDS, _PATCH):
        places = {match[1]: there for name, there in bare.items() if (match := marker.fullmatch(name))}
        if places:
            break
    else:
        raise ValueError(f'weights of no model known here (SgMg, SOC, Video Swin, Swin, RoBERTa). It has '
                         f'{len(tensors)} tensors: {", ".join(map(_shown, sorted(tensors)[:5]))} ...')
    place, *notes = _choose(places, bare)
    others = tuple(other for other in places if other != place and other.startswith(place))
    own = {name.removeprefix(place): there for name, there in bare.items()
           if name.startswith(place) and not name.startswith(others) and name != place + _COUNT}
    beside = {name: there for name, there in bare.items() if not name.startswith(tuple(places))}
    lost = next((there for name, there in beside.items() if names.targets(name)), None)
    if lost:
        raise ValueError(f'{_shown(lost)} is of SgMg or SOC, and not beside {_shown(places[place])}: the model is not '
                         'whole, or its names begin in different ways.')

    parts, change = None, lambda name, x: x
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
        notes.append(f'{len(beside)} tensors beside the model are left out, such as '
                     f'{_shown(next(iter(beside.values())))}')
    called = _renamed(tensors, own, rename)
    return Weights(kind, {name: change(name, tensors[there]) for name, there in called.items()}, parts, called,
                   tuple(notes))


def _renamed(tensors, called, rename):
    """New name -> name in the file, for those that `rename` does not give None. Several names may become one, if they
    are of one tensor."""
    found = {}
    for name, there in called.items():
        name = rename(name)
        if name is None:
            continue
        if not _same(tensors[found.setdefault(name, there)], tensors[there]):
            raise ValueError(f'{_shown(there)} differs from {_shown(found[name])}. In a whole model these are one '
                             'tensor under two names; this checkpoint is of several models, of another one, or was '
                             'damaged.')
    return found


def _same(x, y):
    if x is y:
        return True
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    return x.__array_interface__ == y.__array_interface__ or np.array_equal(x, y, equal_nan=x.dtype.kind in 'fc')


def _choose(places, names):
    """Which of several models is taken, by what stands before its names; and a note, if one was left."""
    averages = {place: there for place, there in places.items()
                if _AVERAGE.search(place) or f'{place}{_COUNT}' in names}
    models = {place: there for place, there in places.items() if place not in averages}
    if len(models or averages) > 1:
        raise ValueError(f'holds several models, and nothing says which is meant: '
                         f'{", ".join(map(_shown, sorted((models or averages).values())[:5]))}. Save the state dict of '
                         'one of them in a file of its own.')
    place, there = next(iter((models or averages).items()))
    if not models:
        return place, f'these are a moving average ({_shown(there)}); the file has no other weights'
    if not averages:
        return place,
    return place, (f'the model itself ({_shown(there)}) is taken, as the authors evaluate it, and not its moving '
                   f'average ({_shown(next(iter(averages.values())))}). To take that, save its state dict in a file of '
                   'its own')


def _of_whole(name, soc):
    if name.endswith(('relative_position_index', 'embeddings.position_ids')):
        return None
    return names.canonical_name(re.sub(f'^{re.escape(SOC_ROBERTA)}', ROBERTA, name) if soc else name)


def _of_roberta(name):
    if name.startswith('lm_head.') or name.endswith('position_ids'):
        return None
    for old, new in (('gamma', 'weight'), ('beta', 'bias')):  # as TensorFlow's files had them
        name = re.sub(rf'LayerNorm\.{old}$', f'LayerNorm.{new}', name)
    return ROBERTA + name


def _of_swin(name):
    if re.match(r'(norm|head|cls_head)\.', name) or name.endswith(('_index', 'attn_mask')):
        return None
    return SWIN + re.sub(r'^layers\.(\d)\.downsample\.', r'downsamples.\1.', name)


def _one_frame_deep(name, x, image):
    """Nothing is computed here: tensors of any size can be claimed in a few bytes."""
    if name == SWIN + 'patch_embed.proj.weight':
        if image:
            return x[:, :, None]
        return _Later((*x.shape[:2], 1, *x.shape[3:]), lambda: x.sum(axis=2, keepdims=True))
    if image and name.endswith('relative_position_bias_table') and x.ndim == 2:
        return _Later((TIME_OFFSETS * len(x), x.shape[1]), lambda: np.tile(x, (TIME_OFFSETS, 1)))
    return x


def _shown(name):
    """A name from a file, for a message."""
    return files.printable(name[:100])
