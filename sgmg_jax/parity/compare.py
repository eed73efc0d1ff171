"""Runs golden cases of the authors' PyTorch release through our model, with weights from the weight converter.

A case is NAME.npz with arrays `in/...`, `out/...`, `grad/...`, and NAME.json, which describes them.
NAME_gradnorms.json may hold the norm of every parameter's gradient, NAME_stages_*.npz the intermediate results of
case NAME. Weights are not stored: they are generated from the official tensors' names and a seed. Arrays are
compared under the release's names, in its layouts: sgmg.py has SgMg's, soc.py SOC's.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
import fnmatch
import os
import pathlib
import re
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from sgmg_jax import files
from sgmg_jax.parity import cases, sgmg, soc

# Tolerances.
ABSOLUTE = 1e-4  # for outputs
RELATIVE = 1e-3  # for losses, norms and gradients
ROUNDING = 1e-6  # relative to the largest gradient, for gradients that are zero up to rounding
SUMS = 1e-9  # for the sums in a fill check, which are float64


class Row(NamedTuple):
    """One compared array; errors are the largest over its entries."""

    case: str
    name: str
    ok: bool
    shape: tuple = ()
    error: float = np.nan
    relative: float = np.nan  # to the largest expected value
    tolerance: float = np.nan
    floors: float = np.nan  # the error, divided by the release's own of float32 against float64
    remark: str = ''

    def __str__(self):
        numbers = [f'{x:10.2e}' if x == x else f'{"-":>10}' for x in (self.error, self.relative, self.tolerance)]
        floors = f'{self.floors:8.2g}' if self.floors == self.floors else f'{"-":>8}'
        return files.printable(
            ' '.join(
                [
                    f'{self.case + "  " + self.name:<92}',
                    f'{tuple(self.shape)!s:<22}',
                    *numbers,
                    floors,
                    '  ok' if self.ok else '  FAILED',
                    self.remark,
                ]
            ).rstrip()
        )


def run(paths: Iterable[str | os.PathLike]) -> bool:
    """Compares every case with the release and prints one line per array.

    Tolerances: 1e-4 for outputs (for the matching cost, relative to its largest value if that exceeds 1); 1e-3 relative
    to the value for losses and gradient norms, to the largest value for gradients; 0 for integers and booleans. For a
    gradient that is zero up to rounding: 1e-6 of the case's largest gradient.

    Args:
      paths: files (a case's npz or JSON, a fill_check_*.json) and folders, with all cases in them.

    Returns:
      whether everything passes: every `out/` and `grad/` array, every norm, the best query of an evaluation and every
      tensor of a fill check was compared and is within its tolerance. An array that cannot be compared fails.

    Raises:
      FileNotFoundError: a path does not exist, or a folder has no case.
    """
    groups: dict[pathlib.Path, list[pathlib.Path]] = {}
    for path in _find(paths):
        groups.setdefault(path.with_name(path.stem.partition('_stages_')[0] + path.suffix), []).append(path)
    rows = []
    print(f'{"case  array":<92} {"shape":<22}  max error   relative  tolerance  x noise')
    with jax.default_matmul_precision('float32'):
        for base, members in groups.items():
            start = time.perf_counter()
            new = _compare(base, members)
            print(*new, _summary(base.stem, new, time.perf_counter() - start), '', sep='\n', flush=True)
            rows += new
    failed = [row for row in rows if not row.ok]
    print(*failed, f'{len({row.case for row in rows})} cases, {len(rows)} arrays, {len(failed)} failed', sep='\n')
    return not failed


def _summary(name, rows, seconds):
    parts = [f'{name}: {len(rows)} arrays, {sum(not row.ok for row in rows)} failed']
    for unit, errors in (
        ('of the tolerance', [row.error / row.tolerance for row in rows if row.tolerance]),
        ("times the release's noise", [row.floors for row in rows]),
    ):
        errors = [x for x in errors if x == x]
        parts += [f'errors up to {max(errors):.2g} {unit}'] if errors else []
    return '; '.join([*parts, f'{seconds:.0f} s'])


def _find(paths: Iterable[str | os.PathLike]) -> list[pathlib.Path]:
    """The npz of every case, and the fill checks, without duplicates."""
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        if not path.exists():
            raise FileNotFoundError(f'{path}: there is no such file or folder')
        if not path.is_dir():
            is_fill = path.stem.startswith('fill_check_')
            found.append(path if is_fill or path.suffix != '.json' else path.with_suffix('.npz'))
            continue
        # A JSON without its npz is also a case: one that fails.
        described = {x.with_name(x.stem.removesuffix('_gradnorms') + '.npz') for x in path.glob('*.json')}
        there = {*path.glob('*.npz'), *path.glob('fill_check_*.json'), *(x for x in described if _comparison(x.stem))}
        if not there:
            raise FileNotFoundError(f'{path}: no case, which would be NAME.npz and NAME.json, in this folder')
        found += sorted(there)
    return list(dict.fromkeys(found))


def _comparison(
    name: str, arrays: Collection[str] = (), meaning: cases.Meaning | None = None
) -> Callable[..., cases.Results] | None:
    """Both systems have cases of some kinds, with the same names."""
    is_soc = 'in/pred_cls' in arrays or 'VOC' in (meaning or {}).get('config_overrides', ())
    first, second = (soc, sgmg) if is_soc else (sgmg, soc)
    for kind, compare in (*first.COMPARISONS.items(), *second.COMPARISONS.items()):
        if fnmatch.fnmatchcase(name, kind):
            return compare
    return None


def _compare(base, members):
    """Rows of those of the case `base` and its stages that are in `members`; the model runs once for all."""
    try:
        if base.suffix == '.json':
            return _check_fill(base)
        read = {path: cases.read(path) for path in dict.fromkeys([base, *members])}
        arrays, meaning = read[base]
        compare = _comparison(meaning['case'], arrays, meaning)
        if compare is None:
            raise ValueError(
                f'case = {meaning["case"]!r}: known kinds are {", ".join(sgmg.COMPARISONS | soc.COMPARISONS)}'
            )
        everything = {name: x for stages, _ in reversed(read.values()) for name, x in stages.items()}
        ours = compare(everything, meaning)
        return [row for path in members for row in _rows(path, *read[path], ours)]
    except Exception as error:  # one broken case must not hide the others
        reason = f'{error} is missing' if isinstance(error, KeyError) else f'{type(error).__name__}: {error}'
        return [Row(path.stem, '-', False, remark=' '.join(f'{base}: {reason}'.split())) for path in members]


def _rows(path: pathlib.Path, arrays: cases.Arrays, meaning: cases.Meaning, ours: cases.Results) -> Iterator[Row]:
    expected: dict[str, Any] = {name: None for name in meaning.get('arrays', {})} | arrays
    expected = {name: x for name, x in expected.items() if not name.startswith('in/')}
    noise = {name: x['max_abs_diff_fp32_vs_fp64'] for name, x in meaning.get('noise_floor', {}).items()}
    if 'best_query' in meaning:
        expected['best_query'] = np.array(meaning['best_query'])
    norms_path = path.with_name(f'{path.stem}_gradnorms.json')
    if norms_path.exists():
        norms = cases.read_json(norms_path)
        if 'norms_fp32' not in norms:
            raise ValueError(f'{norms_path.name}: norms_fp32 is missing')
        expected |= {f'norm/{name}': np.array(x) for name, x in norms['norms_fp32'].items()}
        noise |= {f'norm/{name}': abs(norms['norms_fp32'][name] - x) for name, x in norms.get('norms_fp64', {}).items()}
    if not expected:
        raise ValueError(f'{path.name}: no array out/... or grad/... to compare with')

    gradients = {'grad': 0.0, 'norm': 0.0}  # the largest of each
    for name, x in expected.items():
        kind = name.partition('/')[0]
        if kind in gradients and x is not None:
            gradients[kind] = max(gradients[kind], _largest(x))
    for name, x in expected.items():
        row = Row(path.stem, name, False, np.shape(x))
        if x is None:
            yield row._replace(remark='listed in the JSON but not in the npz')
        elif name not in ours:
            yield row._replace(remark='this tool has nothing to compare it with')
        elif np.shape(ours[name]) != x.shape:
            yield row._replace(remark=f'our shape is {np.shape(ours[name])}')
        else:
            scale, floor = _largest(x), noise.get(name.removeprefix('out/'), np.nan)
            error = _largest(np.asarray(ours[name], np.float64) - x)
            tolerance = _tolerance(name, x.dtype, scale, floor, gradients.get(name.partition('/')[0], 0.0))
            floor = max(floor, 2**-24 * scale)  # float32's resolution
            yield row._replace(
                ok=bool(error <= tolerance),
                error=error,
                tolerance=tolerance,
                relative=error / scale if scale else np.nan,
                floors=error / floor if floor else np.nan,
                remark='' if error == error else 'not a number',
            )


def _largest(x):
    return float(np.max(np.abs(np.asarray(x, np.float64)), initial=0))


def _tolerance(name, dtype, scale, floor, largest_gradient):
    if dtype.kind in 'iub':
        return 0.0
    if name.startswith(('grad/', 'norm/')):
        only_rounding = floor > 0.1 * scale or scale < 0.1 * ROUNDING * largest_gradient
        return max(RELATIVE * scale, ROUNDING * largest_gradient * only_rounding)
    if name.startswith('out/loss/') or name in ('out/total', 'out/grad_total_norm'):
        return RELATIVE * scale
    return ABSOLUTE * max(1, scale) if name == 'out/cost' else ABSOLUTE


def _check_fill(path):
    """Rows of a fill_check JSON, which maps names to the first three values, the sum and the sum of absolute values."""
    check = cases.read_json(path)
    last = path.stem.rpartition('_')[2]
    manifests = [cases.read_json(x) for x in path.parent.glob(f'manifest_*_{last}.json')]
    manifests = [x for x in manifests if set(check['tensors']) <= set(x)]
    seed = re.search(r'fill seed (\d+)', check['what'])
    if len(manifests) != 1 or not seed:
        raise ValueError(
            f'{len(manifests)} files manifest_*_{last}.json in its folder have the shapes of its tensors: '
            'exactly 1 must; and its field what must contain "fill seed" and a number'
        )
    spreads = cases.SOC_SPREADS if any(name.startswith('voc.') for name in check['tensors']) else cases.SPREADS
    rows = []
    for name, (values, *sums) in check['tensors'].items():
        shape, _ = manifests[0][name]
        x = cases.fill(name, shape, int(seed[1]), spreads)
        scale = np.abs(x).sum(dtype=np.float64)
        ours = np.array([*x.ravel()[: len(values)], x.sum(dtype=np.float64) / scale, 1])
        error = _largest(ours - [*values, *(total / scale for total in sums)])
        rows.append(Row(path.stem, name, error <= SUMS, tuple(shape), error, tolerance=SUMS))
    return rows
