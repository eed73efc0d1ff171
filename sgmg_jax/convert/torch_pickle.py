"""An interpreter for the pickle instructions that torch.save writes.

A pickle is a program that can call anything by name, and Python's unpickler does. This interpreter looks names up in a
given table and imports nothing.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
import io
import pickletools
import types
from typing import Any, TypeVar

from sgmg_jax import files

T = TypeVar('T')
# Real pickles have a few hundred bytes and about forty instructions per tensor. The result of a pickle takes up to
# eighty times its size in memory.
LARGEST = 8 * 2**20
_MOST_INSTRUCTIONS = 2**21
_EMPTY: dict[str, Callable] = {
    'NONE': type(None),
    'NEWFALSE': bool,
    'NEWTRUE': lambda: True,
    'EMPTY_DICT': dict,
    'EMPTY_LIST': list,
    'EMPTY_TUPLE': tuple,
}
KEYS = (str, int, float, bool, bytes, type(None))
# Python hashes numbers by value, so an attacker can choose many with the same hash; it hashes text and bytes with a
# secret. Old optimizer states have the addresses of parameters as keys, so some large numbers are allowed.
_SMALL, _MOST_LARGE_KEYS = 2**16, 2**12

FETCH = 'Copy or download it again.'
BARE = 'save the bare state dict again, torch.save(model.state_dict(), path).'
SAVE = f'If you trust the file, load it with PyTorch and {BARE}'


class Unfit(Exception):
    """Why a file is refused and how to fix it, without the file's name."""


def run(program: io.BytesIO, names: Mapping[str, object], storage: Callable | None = None) -> object:
    """The object that a pickle describes.

    Args:
        program: is left at the end of the pickle.
        names: the names that the pickle may use, 'module name' -> its value: a function of plain values, or a dtype.
        storage: function(*description) -> a storage; None: storages are refused.

    Raises:
        Unfit, TypeError, ValueError, LookupError, OverflowError: the pickle is damaged or uses anything else.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    length, copied, large = len(program.getbuffer()), 0, 0

    def above_mark() -> list:
        mark = marks.pop()
        values = stack[mark:]
        del stack[mark:]
        return values

    def count(values: Any) -> None:
        # A few bytes could copy a long list again and again.
        nonlocal copied
        copied += len(values)
        if copied > length:
            raise Unfit(f'its pickle creates more than its {length} bytes can describe. {SAVE}')

    def key(value: Any) -> Any:
        nonlocal large
        large += is_large(exactly(value, *KEYS))
        if large > _MOST_LARGE_KEYS:
            raise Unfit(f'its pickle has more than {_MOST_LARGE_KEYS} large numbers as keys. {SAVE}')
        return value

    for number, (instruction, value, _) in enumerate(pickletools.genops(program)):
        if number == _MOST_INSTRUCTIONS:
            raise Unfit(f'its pickle has more than {_MOST_INSTRUCTIONS} instructions. {SAVE}')
        match instruction.name:
            case 'PROTO' if value == 2:
                pass
            # Python 2 wrote text as BINSTRING or SHORT_BINSTRING.
            case (
                'BINUNICODE' | 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINFLOAT' | 'BINSTRING' | 'SHORT_BINSTRING'
            ):
                stack.append(value)
            case name if name in _EMPTY:
                stack.append(_EMPTY[name]())
            case 'MARK':
                marks.append(len(stack))
            case 'BINPUT' | 'LONG_BINPUT':
                memo[value] = stack[-1]
            case 'BINGET' | 'LONG_BINGET':
                stack.append(memo[value])
            case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                stack.append(tuple([stack.pop() for _ in range(int(instruction.name[-1]))][::-1]))
            case 'TUPLE':
                stack.append(tuple(above_mark()))
            case 'APPEND' | 'APPENDS':
                values = [stack.pop()] if instruction.name == 'APPEND' else above_mark()
                exactly(stack[-1], list).extend(values)
            case 'SETITEM' | 'SETITEMS':
                values = [stack.pop(), stack.pop()][::-1] if instruction.name == 'SETITEM' else above_mark()
                target = exactly(stack[-1], dict, OrderedDict)
                for name, item in zip(values[::2], values[1::2], strict=True):
                    target[key(name)] = item
            case 'GLOBAL':
                global_ = exactly(value, str)
                if global_ not in names:
                    raise Unfit(
                        f'its pickle asks for {shown(global_.replace(" ", "."))}, which tensors do not need '
                        f'and which could run anything. Nothing was run. {SAVE}'
                    )
                stack.append(names[global_])
            case 'BINPERSID' if storage:
                stack.append(storage(*exactly(stack.pop(), tuple)))
            case 'REDUCE' | 'NEWOBJ':
                arguments, make = exactly(stack.pop(), tuple), exactly(stack.pop(), types.FunctionType)
                for x in arguments:
                    if isinstance(x, (str, tuple, list, dict)):
                        count(x)
                stack.append(make(*arguments))
            case 'BUILD':
                state, built = exactly(stack.pop(), dict), exactly(stack[-1], OrderedDict, types.SimpleNamespace)
                count(state)
                if isinstance(built, types.SimpleNamespace):  # The state of an OrderedDict is PyTorch's _metadata.
                    vars(built).update({exactly(name, str): item for name, item in state.items()})
            case 'STOP':
                return stack.pop()
            case name:
                raise Unfit(
                    f'its pickle has the instruction {name}{"" if value is None else f" {value!r:.80}"}, '
                    'which torch.save does not write (it writes pickle protocol 2). Nothing was run. '
                    f'{SAVE}'
                )
    raise ValueError('the pickle has no end')


def exactly(value: object, *kinds: type[T]) -> T:
    """`value`, if its type is exactly one of `kinds`. For other types even a hash or a repr could take forever.

    Raises:
        TypeError: it has another type.
    """
    if type(value) not in kinds:
        raise TypeError(f'{type(value).__name__} where {kinds[0].__name__} belongs')
    return value  # type: ignore[return-value]  # checked above


def shown(name: str) -> str:
    """A name from a file, for a message."""
    return files.printable(name[:80])


def is_large(key: object) -> bool:
    """Whether a key is a number that could collide with many others."""
    return type(key) is float or type(key) is int and abs(key) >= _SMALL
