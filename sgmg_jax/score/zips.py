"""Untrusted zips: the memory that reading one takes is bounded."""

from collections.abc import Iterator
import contextlib
import io
import pathlib
import stat
import struct
import zipfile
import zlib

from sgmg_jax import files

LARGEST_INDEX = 2**25  # bytes of the central directory: some 400,000 masks

# Raised by zipfile on damaged files.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    OverflowError,
    LookupError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


class _BoundedFile(io.FileIO):
    """A zip with a bounded central directory: zipfile reads as many bytes as the zip claims it has."""

    opening = True

    def read(self, size: int | None = -1) -> bytes:
        if self.opening and size is not None and size > LARGEST_INDEX:
            raise zipfile.BadZipFile(f'its list of files has {size:,} bytes, must have at most {LARGEST_INDEX:,}')
        return super().read(size)


@contextlib.contextmanager
def open_zip(path: pathlib.Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip for `read_member`. Raises OSError, and ValueError if it is damaged or not a zip."""
    files.check_regular(path)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_BoundedFile(path))
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
            file.opening = False
        except _UNREADABLE as error:
            raise ValueError(
                f'{path}: is neither a folder nor a readable zip ({error}). Zip the masks again.'
            ) from error
        yield archive


def read_member(archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    """A file in a zip, of at most `largest` bytes both compressed and not.

    Raises:
        FileNotFoundError: there is no such file in the zip.
        ValueError: it cannot be read; the message gives the reason, without the name.
    """
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise FileNotFoundError('no such file in the zip') from error
    if info.flag_bits & 1:
        raise ValueError('it is encrypted; zip without a password')
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # The others' memory has no bound.
        raise ValueError('it is not compressed with deflate, the usual method; zip again with it')
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise ValueError('it is a link or a device, not a file; zip the file that it points to')
    if max(info.file_size, info.compress_size) > largest:
        raise ValueError(f'it has {max(info.file_size, info.compress_size):,} bytes, must have at most {largest:,}')
    try:
        with archive.open(info) as file:
            data = file.read(info.file_size + 1)  # Without a size, zipfile holds all of it before it checks the size.
    except _UNREADABLE as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if len(data) != info.file_size:
        raise ValueError(f'it has {len(data):,} bytes, but the zip declares {info.file_size:,}')
    return data
