"""Counts the floating-point operations of a function as it is written, on no device."""

from collections.abc import Callable, Iterator
import math
from typing import Any


def count(function: Callable, *arguments: object) -> float:
    """FLOPs of the matrix products, convolutions and FFTs of a function of arrays or their shapes.

    The body of a loop counts as often as it runs (that of a `while`, whose number is not fixed, once), which in XLA's
    count it does not. Results that nothing uses count. Operations on single elements do not.
    """
    import jax

    return float(_count(jax.make_jaxpr(lambda *arguments: function(*arguments))(*arguments).jaxpr))


def _count(jaxpr: Any) -> float | int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> float | int:
    kind, params = equation.primitive.name, equation.params
    if kind == 'dot_general':
        (contracted, _), _ = params['dimension_numbers']
        return 2 * equation.outvars[0].aval.size * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
    if kind == 'conv_general_dilated':
        kernel = equation.invars[1].aval
        features = kernel.shape[params['dimension_numbers'].rhs_spec[0]]
        return 2 * equation.outvars[0].aval.size * kernel.size / features
    if kind == 'fft':
        points = math.prod(params['fft_lengths'])
        transforms = max(x.aval.size for x in (equation.invars[0], equation.outvars[0])) / points
        half = 0.5 if params['fft_type'].name in ('RFFT', 'IRFFT') else 1  # of real numbers
        return 5 * half * transforms * points * math.log2(points)
    inside = [_count(jaxpr) for jaxpr in _inside(list(params.values()))]
    if kind == 'cond':
        return max(inside)
    return sum(inside) * (params['length'] if kind == 'scan' else 1)


def _inside(values: list) -> Iterator[Any]:
    """The programs that an equation calls."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _inside(list(value))
        elif hasattr(value, 'eqns') or hasattr(value, 'jaxpr'):
            yield getattr(value, 'jaxpr', value)
