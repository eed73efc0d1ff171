"""The instructions of pickle that torch.save writes, and no more.

A pickle is a program that may call whatever it names, and Python's unpickler does that. The machine here finds names
in a table that it is given, and imports nothing.
"""
from collections import OrderedDict
from collections.abc import Callable, Mapping
import io
import pickletools
import types

from sgmg_jax import files

# Real ones take a few hundred bytes and some forty instructions a tensor. What one makes takes up to eighty times its
# size in memory.
LARGEST = 8 * 2 ** 20
_MOST_INSTRUCTIONS = 2 ** 21
_EMPTY = {'NONE': type(None), 'NEWFALSE': bool, 'NEWTRUE': lambda: True,
          'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}
KEYS = (str, int, float, bool, bytes, type(None))
# Python hashes a number by its value, so that one can choose many of one hash; text and bytes with a secret. Optimizers
# once had the addresses of their parameters for keys.
_SMALL, _MOST_LARGE_KEYS = 2 ** 16, 2 ** 12

FETCH = 'Copy or download it again.'
BARE = 'save the bare state dict again, torch.save(model.state_dict(), path).'
SAVE = f'If you trust the file, load it with PyTorch and {BARE}'


class Unfit(Exception):
    """Why a file is refused and how to mend that, still without its name."""


def run(program: io.BytesIO, names: Mapping[str, object], storage: Callable | None = None) -> object:
    """What a pickle describes, by the instructions that torch.save writes.

    Args:
        program: stands behind the pickle's end afterwards.
        names: all that the pickle may name, 'module name' -> what it becomes: a function of plain values, a dtype.
        storage: what a storage's description becomes; None: there are none.

    Raises:
        Unfit, TypeError, ValueError, LookupError, OverflowError: it is damaged or asks for more.
    """
    stack, marks, memo = [], [], {}
    length, copied, large = len(program.getbuffer()), 0, 0

    def above_mark():
        mark = marks.pop()
        values = stack[mark:]
        del stack[mark:]
        return values

    def count(values):
        # A few bytes could have a long list, written once, copied again and again.
        nonlocal copied
        copied += len(values)
        if copied > length:
            raise Unfit(f'its pickle makes more than its {length} bytes can describe. {SAVE}')

    def key(value):
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
            # Python 2 wrote text as the strings.
            case ('BINUNICODE' | 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINFLOAT' | 'BINSTRING'
                  | 'SHORT_BINSTRING'):
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
                if value not in names:
                    raise Unfit(f'its pickle asks for {shown(value.replace(" ", "."))}, which tensors '
                                f'do not need and which could run anything. Nothing was run. {SAVE}')
                stack.append(names[value])
            case 'BINPERSID' if storage:
                stack.append(storage(*exactly(stack.pop(), tuple)))
            case 'REDUCE' | 'NEWOBJ':
                values, make = exactly(stack.pop(), tuple), exactly(stack.pop(), types.FunctionType)
                for x in values:
                    if isinstance(x, (str, tuple, list, dict)):
                        count(x)
                stack.append(make(*values))
            case 'BUILD':
                state, target = exactly(stack.pop(), dict), exactly(stack[-1], OrderedDict, types.SimpleNamespace)
                count(state)
                if isinstance(target, types.SimpleNamespace):  # That of an OrderedDict is PyTorch's _metadata.
                    vars(target).update({exactly(name, str): item for name, item in state.items()})
            case 'STOP':
                return stack.pop()
            case name:
                raise Unfit(f'its pickle has the instruction {name}{"" if value is None else f" {value!r:.80}"}, '
                            'which torch.save does not write by itself (it writes pickle protocol 2). Nothing was '
                            f'run. {SAVE}')


def exactly(value: object, *kinds: type) -> object:
    """`value`, if of one of these very types. Of others even a hash or a repr could take forever.

    Raises:
        TypeError: it is of another.
    """
    if type(value) not in kinds:
        raise TypeError(f'{type(value).__name__} where {kinds[0].__name__} belongs')
    return value


def shown(name: str) -> str:
    """A name from a file, for a message."""
    return files.printable(name[:80])


def is_large(key: object) -> bool:
    """Whether a key is a number that could be one of many of the same hash."""
    return type(key) is float or type(key) is int and abs(key) >= _SMALL
