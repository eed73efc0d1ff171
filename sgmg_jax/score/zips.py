"""Zips of strangers: what one holds is bounded before memory is taken for it."""
from collections.abc import Iterator
import contextlib
import io
import pathlib
import stat
import struct
import zipfile
import zlib

from sgmg_jax import files

LARGEST_INDEX = 2 ** 25  # bytes of the list of files in a zip: of some 400,000 masks

# What zipfile raises on a damaged file.
_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, OverflowError, LookupError, struct.error, zlib.error,
               zipfile.BadZipFile)


class _BoundedFile(io.FileIO):
    """A zip whose list of files is bounded: zipfile takes as much memory for it as the zip says."""
    opening = True

    def read(self, size=-1):
        if self.opening and size is not None and size > LARGEST_INDEX:
            raise zipfile.BadZipFile(f'its list of files has {size:,} bytes, at most {LARGEST_INDEX:,} are read')
        return super().read(size)


@contextlib.contextmanager
def open_zip(path: pathlib.Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip to be read by `read_member`. Raises OSError, and ValueError if it is none, or damaged."""
    files.check_regular(path)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_BoundedFile(path))
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
            file.opening = False
        except _UNREADABLE as error:
            raise ValueError(f'{path}: neither a folder nor a readable zip ({error}); '
                             f'zip the masks again') from error
        yield archive


def read_member(archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    """A file in a zip, of at most `largest` bytes, packed and unpacked.

    Raises:
        FileNotFoundError: there is no such file in it.
        ValueError: it cannot be read; says why, without the name.
    """
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise FileNotFoundError('there is no such file in the zip') from error
    if info.flag_bits & 1:
        raise ValueError('it is encrypted; zip without a password')
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # The others' memory has no bound.
        raise ValueError('it is not compressed by deflate, the usual way; zip again with it')
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise ValueError('it is a link or a device, not a file; zip what it leads to')
    if max(info.file_size, info.compress_size) > largest:
        raise ValueError(f'it has {max(info.file_size, info.compress_size):,} bytes, at most {largest:,} are read')
    try:
        with archive.open(info) as file:
            data = file.read(info.file_size + 1)  # Without a number, all that unpacks is held before it is cut off.
    except _UNREADABLE as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if len(data) != info.file_size:
        raise ValueError(f'it has {len(data):,} bytes, though the zip says {info.file_size:,}')
    return data
