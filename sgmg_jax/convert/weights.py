"""Loads weights from any known file, saves them, and converts them to the released names."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import errno
import json
import math
import os
import pathlib
import re
import secrets
import shutil
from typing import Any, no_type_check

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from safetensors.numpy import save_file

from sgmg_jax import checkpoints, config, files
from sgmg_jax.convert import names, sources
from sgmg_jax.models import video_swin

LARGEST_WEIGHT = 1e18  # float32 cannot hold the square of a larger one
SUFFIXES = '', '.safetensors'  # of the paths that `save` writes
CHECKSUMS = 'crc32.json'  # in a folder written by `save`: path of ours -> checksum of its bytes
POOLER = 'text_backbone/pooler/'
_WHOLE = 'query_embedding'  # a parameter that only whole models have
# Of the parts that config.model may switch off.
_SGMG_HAS = 'augment_before_0/laplace/kernel', 'mask_optimizer/stride8/out/kernel'
_SOC_HAS = (
    'fusion/to_vision/attention/query/kernel',
    'fusion/to_language/attention/query/kernel',
    'object_cluster/encoder0_attention/query/kernel',
    'object_cluster/decoder0_attention/query/kernel',
)


@no_type_check  # checks its own arguments
def load(
    paths: str | os.PathLike | tuple | list, shapes: Mapping, skip: str = ''
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Loads parameters from one or several files, each for its part of the model.

    Args:
        paths: one or several of: .pth or .safetensors with weights of SgMg, SOC, Video Swin, Swin or RoBERTa (see
            sources.recognise), the output of `save`, the --workdir of a training run. A later one overrides an earlier
            one.
        shapes: the model's parameter tree (nested dicts of anything with a shape).
        skip: a regular expression; parameters of ours whose whole path matches are not loaded.

    Returns:
        path of ours -> float32 NumPy array, for the parameters found; and lines that report what each file gave.
        RoBERTa's pooler may be missing, as in Hugging Face's files of the masked language model; a line reports it.

    Raises:
        FileNotFoundError: for a path that does not exist.
        ValueError: if a file cannot be read, does not fit the model, lacks a parameter of its part, or has invalid
            weights: not floating point, NaN, infinite or absurdly large.
    """
    try:
        given = [pathlib.Path(path) for path in config.paths(paths)]
    except TypeError as error:
        raise ValueError(f'weights from {paths!r:.200}: must be one path or several.') from error
    wanted = traverse_util.flatten_dict(shapes, sep='/')
    skipped = _skipped(skip, wanted)
    found: dict[str, np.ndarray] = {}
    report: list[str] = []
    for path in given:
        try:
            kind, part, notes = _load_one(path, shapes, skip)
            check_finite(part, path)
        except ValueError as error:
            raise ValueError(error if str(error).startswith(str(path)) else f'{path}: {error}') from error
        types = sorted({str(x.dtype) for x in part.values()} - {'float32'})
        notes = [*notes, *(f'converted from {name} to float32' for name in types)]
        found |= {name: x.astype(np.float32, copy=False) for name, x in part.items()}
        count, modules = sum(x.size for x in part.values()), sorted({name.split('/')[0] for name in part})
        report += [
            f'{path} ({kind}): {len(part)} arrays, {count / 1e6:.2f} M parameters of '
            f'{", ".join(modules[:4])}{" ..." if len(modules) > 4 else ""}',
            *(f'{path}: {note}.' for note in notes),
        ]
    if skip and given and not skipped:
        report.append(f'skip = {skip!r} matches no whole name of a parameter, so nothing was left out.')
    pooler = {name for name in wanted if name.startswith(POOLER)} - skipped
    if any(name.startswith('text_backbone/') for name in found) and pooler - set(found):
        report.append(
            'the pooler of the text encoder is in none of them: it is initialised randomly (and stays so if '
            'config.optimizer.freeze covers it).'
        )
    return found, report


@no_type_check  # checks its own arguments
def _skipped(skip: str, paths: Iterable[str]) -> set[str]:
    """The paths that the regular expression matches as a whole."""
    try:
        return {path for path in paths if skip and re.fullmatch(skip, path)}
    except (re.error, TypeError) as error:
        raise ValueError(f'{skip!r:.200} (--skip, config.init_skip): is not a regular expression ({error}).') from error


def _load_one(path: pathlib.Path, shapes: Mapping, skip: str) -> tuple[str, dict[str, np.ndarray], tuple[str, ...]]:
    """(kind, path of ours -> array, notes)."""
    with _stored(path) as (there, read):
        if _is_ours(there):
            there = {name: x for name, x in there.items() if name not in _skipped(skip, there)}
            _check_fit(there, shapes, skip)
            found = read()
            return 'sgmg_jax', {name: found[name] for name in there}, ()
    weights = sources.recognise(there)
    wanted = {part: shapes[part] for part in weights.parts or set(shapes) - names.OURS_ALONE}
    if weights.parts == ('text_backbone',) and not any('.pooler.' in name for name in weights.tensors):
        wanted = traverse_util.unflatten_dict(_without_pooler(traverse_util.flatten_dict(wanted, sep='/')), sep='/')
    found = names.from_official(weights.tensors, wanted, skip, weights.called)
    return weights.kind, traverse_util.flatten_dict(found, sep='/'), weights.notes


def _check_fit(there: Mapping[str, Any], shapes: Mapping, skip: str) -> None:
    """Checks that stored parameters of ours cover whole parts of the model; RoBERTa's pooler may be missing."""
    wanted = traverse_util.flatten_dict(shapes, sep='/')
    parts = {name.split('/')[0] for name in there}
    wanted = {
        name: x for name, x in wanted.items() if name.split('/')[0] in parts and name not in _skipped(skip, wanted)
    }
    if _WHOLE not in there and not any(name.startswith(POOLER) for name in there):
        wanted = _without_pooler(wanted)
    names.check(
        sorted(set(there) - set(wanted)),
        [
            f'{name} {tuple(x.shape)} for {tuple(wanted[name].shape)}'
            for name, x in there.items()
            if name in wanted and tuple(x.shape) != tuple(wanted[name].shape)
        ],
        sorted(set(wanted) - set(there)),
    )


def _without_pooler(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in parameters.items() if not name.startswith(POOLER)}


def _is_ours(tensors: Iterable[str]) -> bool:
    return any('/' in name or name == _WHOLE for name in tensors)


def read_ours(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads parameters, path -> NumPy array, written by `save` or from the best checkpoint of a run's --workdir.

    Raises:
        FileNotFoundError: there are none.
        ValueError: naming file and parameter: it is damaged, or its weights are invalid (`check_finite`).
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise _nothing_there(path)
    with _stored(path) as (there, read):
        if not _is_ours(there):
            raise ValueError(
                f'{path}: has no parameters with names of sgmg_jax. `python -m sgmg_jax.convert '
                'from-official` reads weights with the names of the releases.'
            )
        parameters = read()
    check_finite(parameters, path)
    return parameters


@contextlib.contextmanager
def _stored(path: pathlib.Path) -> Iterator[tuple[Mapping[str, Any], Callable[[], dict[str, np.ndarray]]]]:
    """Opens a file or folder: yields path -> anything with a shape, and a function() -> path -> array."""
    whole = path / 'model.safetensors' if path.is_dir() else path  # of a model folder, or of Hugging Face's
    if whole.is_file() or not path.is_dir():
        tensors = sources.read(whole)
        yield tensors, lambda: tensors
    elif (path / 'checkpoints').is_dir():
        with contextlib.closing(checkpoints.Checkpoints(path, read_only=True)) as saved:
            step = saved.find('best')
            shapes = saved.parameter_shapes(step)
            yield shapes, lambda: jax.tree.map(np.asarray, saved.restore_parameters(step, shapes))
    elif (path / '_METADATA').exists():
        with ocp.StandardCheckpointer() as checkpointer:
            yield _folder_shapes(checkpointer, path), lambda: _read_folder(checkpointer, path)
    else:
        raise _nothing_there(path)


def _nothing_there(path: pathlib.Path) -> FileNotFoundError:
    inside = [
        name
        for name in (files.listing(path)[1] if path.is_dir() else ())
        if name.endswith(('.safetensors', '.bin', '.pth', '.pt', '.ckpt'))
    ]
    hint = (
        f'It contains {files.printable(inside[0])}: give that.'
        if inside
        else (
            'Give a .safetensors, a folder that `python -m sgmg_jax.convert` wrote, or the --workdir of a training run.'
        )
    )
    return FileNotFoundError(f'{path}: no weights there. {hint}')


def _folder_shapes(checkpointer: ocp.StandardCheckpointer, path: pathlib.Path) -> dict[str, Any]:
    """The shapes in an Orbax checkpoint: path of ours -> anything with a shape."""
    files.check_folder(path)
    with _readable(path):
        shapes = _flat(checkpointer.metadata(path.absolute()).item_metadata.tree)
    for name, x in shapes.items():
        if not hasattr(x, 'shape'):
            raise ValueError(
                f'{path}: {files.printable(name)} is not an array. Give a folder that '
                '`python -m sgmg_jax.convert` wrote.'
            )
        stored = x.storage and x.storage.chunk_shape
        if max(math.prod(x.shape), math.prod(stored or ())) > sources.LARGEST:
            raise ValueError(
                f'{path}: {files.printable(name)} has shape {x.shape}, chunks of {stored}: more numbers '
                'than in any of these models.'
            )
    if sum(math.prod(x.shape) for x in shapes.values()) > sources.LARGEST_FILE:
        raise ValueError(f'{path}: has more numbers than any of these models.')
    return shapes


def _read_folder(checkpointer: ocp.StandardCheckpointer, path: pathlib.Path) -> dict[str, np.ndarray]:
    with _readable(path):
        parameters = jax.tree.map(np.asarray, _flat(checkpointer.restore(path.absolute())))
    sums = path / CHECKSUMS
    if sums.exists():  # Earlier versions wrote none.
        stored, found = files.read_json(sums), {name: sources.crc32(x) for name, x in parameters.items()}
        wrong = [name for name in parameters if not isinstance(stored, dict) or stored.get(name) != found[name]]
        if wrong:
            raise ValueError(
                f'{path}: {files.printable(wrong[0])} is damaged: its checksum is not the one in '
                f'{CHECKSUMS}. Copy the folder again, or convert again.'
            )
    return parameters


@contextlib.contextmanager
def _readable(path: pathlib.Path) -> Iterator[None]:
    """Turns the various exceptions of Orbax and TensorStore for a damaged folder into a ValueError."""
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).splitlines()), '') or type(error).__name__
        raise ValueError(
            f'{path}: is not a whole Orbax checkpoint ({files.printable(reason)[:200]}). Copy the folder '
            'again, or convert again.'
        ) from error


def _flat(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): x
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def check_finite(parameters: Mapping[str, jax.Array | np.ndarray], where: str | os.PathLike) -> None:
    """Checks that parameters, path -> array, are valid weights.

    Args:
        where: the file that they are from, for the message.

    Raises:
        ValueError: naming `where` and the parameter: it is not floating point, or has a NaN, an infinity, or a number
            beyond LARGEST_WEIGHT.
    """
    for path, x in parameters.items():
        x = np.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f'{where}: {files.printable(path)} is of type {x.dtype}; weights are floating-point '
                'numbers. Write it again, as float32.'
            )
        with np.errstate(invalid='ignore'):
            low, high = (float(x.min()), float(x.max())) if x.size else (0, 0)  # NaN if x has one
        if not (-LARGEST_WEIGHT <= low and high <= LARGEST_WEIGHT):
            worst = high if low >= -LARGEST_WEIGHT else low
            raise ValueError(
                f'{where}: {files.printable(path)} has a weight of {worst:g}. The file is damaged, or '
                'training diverged. Copy it again, or use an earlier checkpoint.'
            )


def save(parameters: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Writes parameters, path of ours -> array, with a checksum of each, whole or not at all: to a .safetensors, or to
    an Orbax checkpoint if `path` has no suffix.

    Raises:
        FileExistsError: `path` exists.
        OSError: it cannot be written.
        ValueError: for another suffix.
    """
    path = files.check_new(pathlib.Path(path).absolute(), SUFFIXES)
    parameters = {name: np.asarray(x, order='C') for name, x in parameters.items()}
    sums = {name: sources.crc32(x) for name, x in parameters.items()}
    if path.suffix:
        metadata = {sources.CHECKSUM + name: f'{value:08x}' for name, value in sums.items()}
        with files.replacing(path) as partial, _as_os_error():
            save_file(parameters, partial, metadata)
    else:
        _save_folder(parameters, sums, path)


def _save_folder(parameters: Mapping[str, np.ndarray], sums: Mapping[str, int], path: pathlib.Path) -> None:
    partial = path.with_name(f'.partial-{secrets.token_hex(8)}')
    try:
        partial.mkdir(parents=True)
        needed, free = sum(x.nbytes for x in parameters.values()), shutil.disk_usage(partial).free
        if free < needed:  # Orbax's writers would report a full disk with tracebacks.
            raise OSError(errno.ENOSPC, f'needs {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free')
        with _as_os_error():
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(partial / 'weights', parameters)
            (partial / 'weights' / CHECKSUMS).write_text(json.dumps(sums))
            os.rename(partial / 'weights', path)
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f'cannot write ({error.strerror or error}). Free some space, or check the path and its permissions',
            str(path),
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Turns the exceptions of safetensors and Orbax for a failed system call into an OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        match = re.search(r"os error (\d+)|os_error_code='(\d+)'", str(error))
        number = int(match[1] or match[2]) if match else errno.EIO
        raise OSError(number, os.strerror(number) if number != errno.EIO else str(error)[:300]) from error


def _check_variant(parameters: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError for a whole model of which the papers' tables switch a part (studies/rows.py)."""
    soc = 'text_projection/linear/kernel' in parameters
    wanted = _SOC_HAS if soc else _SGMG_HAS
    absent = [f'{name} is missing' for name in wanted if name not in parameters]
    if not soc and 'feature_pyramid/out/kernel' in parameters:
        absent.append('it has a feature decoder')
    if not soc and not absent and parameters[_SGMG_HAS[-1]].shape[-1] != 16:
        absent.append('it has one label per token')
    if absent:
        raise ValueError(
            f'{absent[0]}: this is a variant of {"SOC" if soc else "SgMg"} that was not released, with another '
            'config.model than the release. Only released models have official names.'
        )


def released(parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts parameters, path of ours -> array, to the whole state dict of the released SgMg or SOC. It includes the
    index tables and position ids that the modules register as buffers, so that it loads with strict=True.

    Raises:
        ValueError: if the parameters are not those of a whole model, or of a model that was not released.
    """
    absent = [name for name in (_WHOLE, 'text_backbone/positions/embedding') if name not in parameters]
    if absent:
        raise ValueError(
            f'{absent[0]} is missing: these are not the parameters of a whole model, and the releases '
            'can load only whole models.'
        )
    _check_variant(parameters)
    tensors = names.to_official(traverse_util.unflatten_dict(parameters, sep='/'))
    index = np.ascontiguousarray(video_swin.relative_position_index(), np.int64)
    for name in list(tensors):
        if name.endswith('relative_position_bias_table'):
            tensors[name.replace('bias_table', 'index')] = index
    positions = len(tensors[sources.ROBERTA + 'embeddings.position_embeddings.weight'])
    tensors[sources.ROBERTA + 'embeddings.position_ids'] = np.arange(positions)[None]
    if any(path.startswith('object_cluster/') for path in parameters):
        tensors = {names.soc_name(name): x for name, x in tensors.items()}
    return tensors
