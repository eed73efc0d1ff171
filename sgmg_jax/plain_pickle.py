"""Reads pickles of plain data, such as RefCOCO's sentences, without running anything.

A pickle is a program that may call whatever it names. This interpreter knows only the instructions that build lists,
dictionaries, strings and numbers, so nothing can be called. pickletools.genops does not read all strings of Python 2.
"""

import io
import os
import pickle
import struct
import typing

from sgmg_jax import files

LARGEST = 2**26  # bytes: twice RefCOCO's
MOST_CONTAINERS = 2**23  # lists, dictionaries and marks, one byte each in the file; RefCOCO has a twentieth of it
_CONTAINERS = {pickle.MARK, pickle.EMPTY_LIST, pickle.LIST, pickle.EMPTY_DICT, pickle.DICT}


def read(file: str | os.PathLike, below: str | os.PathLike | None = None) -> typing.Any:
    """The content of a pickle of protocol 0, 1 or 2: lists, dictionaries, numbers, strings (Python 2's as latin-1).

    Keys are strings, or whole numbers below 2 ** 60.

    Args:
        below: a folder that a link to the file must not lead out of.

    Raises:
        ValueError: the file is too large, damaged, or asks for anything else.
        OSError: the file cannot be read.
    """
    data = files.read_bytes(file, LARGEST, below)
    try:
        return _load(io.BytesIO(data))
    # Damage may also pop from an empty stack or use a value of the wrong type.
    except (pickle.UnpicklingError, ValueError, TypeError, LookupError, EOFError, OverflowError, MemoryError) as error:
        reason = files.printable(f'{type(error).__name__}: {error!s:.100}')
        raise ValueError(
            f'{file}: is no pickle of plain data, or damaged ({reason}). Nothing was run. Unpack it '
            'again from the archive.'
        ) from error


def _load(stream: io.BytesIO) -> typing.Any:
    stack: list = []
    marks: list[int] = []
    memo: dict[int, typing.Any] = {}
    containers = 0

    def take(count: int) -> bytes:
        data = stream.read(count)
        if len(data) != count:  # A negative count reads all.
            raise EOFError('ends inside an instruction')
        return data

    def number(size: int, signed: bool = False) -> int:
        return int.from_bytes(take(size), 'little', signed=signed)

    def line() -> bytes:
        data = stream.readline()
        if not data.endswith(b'\n'):
            raise EOFError('ends inside an instruction')
        return data[:-1]

    def above_mark() -> list:
        mark = marks.pop()
        values = stack[mark:]
        del stack[mark:]
        return values

    def set_items(target: object, items: list) -> dict:
        for key, value in zip(items[::2], items[1::2], strict=True):
            _exactly(target, dict)[_hashable(key)] = value
        return typing.cast(dict, target)

    while True:
        code = take(1)
        if code in _CONTAINERS:
            containers += 1
            if containers > MOST_CONTAINERS:
                raise pickle.UnpicklingError(f'has more than {MOST_CONTAINERS:,} lists and dictionaries')
        match code:  # The frequent ones first.
            case pickle.LONG_BINPUT:
                memo[number(4)] = stack[-1]
            case pickle.PUT:
                memo[_whole_number(line())] = stack[-1]
            case pickle.SETITEM:
                value, key = stack.pop(), stack.pop()
                set_items(stack[-1], [key, value])
            case pickle.LONG_BINGET:
                stack.append(memo[number(4)])
            case pickle.GET:
                stack.append(memo[_whole_number(line())])
            case pickle.APPEND:
                value = stack.pop()
                _exactly(stack[-1], list).append(value)
            case pickle.STRING:
                stack.append(_quoted(line()))
            case pickle.UNICODE:
                stack.append(line().decode('raw-unicode-escape'))
            case pickle.BINUNICODE:
                stack.append(take(number(4)).decode('utf-8', 'surrogatepass'))
            case pickle.SHORT_BINSTRING:
                stack.append(take(number(1)).decode('latin-1'))
            case pickle.APPENDS:
                values = above_mark()
                _exactly(stack[-1], list).extend(values)
            case pickle.SETITEMS:
                values = above_mark()
                set_items(stack[-1], values)
            case pickle.MARK:
                marks.append(len(stack))
            case pickle.BININT:
                stack.append(number(4, signed=True))
            case pickle.INT:
                text = line()
                stack.append(text == b'01' if text in (b'00', b'01') else _whole_number(text))
            case pickle.BINSTRING:
                stack.append(take(number(4, signed=True)).decode('latin-1'))
            case pickle.BINPUT:
                memo[number(1)] = stack[-1]
            case pickle.BINGET:
                stack.append(memo[number(1)])
            case pickle.EMPTY_LIST:
                stack.append([])
            case pickle.LIST:
                stack.append(above_mark())
            case pickle.EMPTY_DICT:
                stack.append({})
            case pickle.DICT:
                stack.append(set_items({}, above_mark()))
            case pickle.BININT1:
                stack.append(number(1))
            case pickle.BININT2:
                stack.append(number(2))
            case pickle.LONG1:
                stack.append(number(number(1), signed=True))
            case pickle.LONG:
                stack.append(_whole_number(line()))
            case pickle.FLOAT:
                stack.append(float(line()))
            case pickle.BINFLOAT:
                stack.extend(struct.unpack('>d', take(8)))
            case pickle.NONE:
                stack.append(None)
            case pickle.NEWTRUE:
                stack.append(True)
            case pickle.NEWFALSE:
                stack.append(False)
            case pickle.PROTO:
                if number(1) > pickle.HIGHEST_PROTOCOL:
                    raise pickle.UnpicklingError('is of an unknown protocol')
            case pickle.STOP:
                if marks:
                    raise pickle.UnpicklingError('ends inside a list or dictionary')
                return stack.pop()
            case _:
                raise pickle.UnpicklingError('asks for more than lists, dictionaries, strings and numbers')


def _exactly(value: object, kind: type) -> typing.Any:
    if type(value) is not kind:
        raise TypeError(f'{type(value).__name__} where {kind.__name__} belongs')
    return value


def _hashable(key: object) -> str | int:
    """`key`, if it cannot be one of many that collide: strings hash with a secret, small numbers to their value."""
    if type(key) is str or type(key) is int and abs(key) < 2**60:
        return key
    raise pickle.UnpicklingError('has keys that are neither strings nor small whole numbers')


def _quoted(line: bytes) -> str:
    """A string as Python 2's repr writes it."""
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[:1] != line[-1:]:
        raise ValueError('has a string without quotes')
    return line[1:-1].decode('unicode_escape')


def _whole_number(line: bytes) -> int:
    if len(line) > 40:
        raise pickle.UnpicklingError('has a number of more than 40 digits')
    return int(line.removesuffix(b'L'), 0)
