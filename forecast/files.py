"""
Replace files and directories so that a crash leaves either the old content or the new one.

The new content is written to a temporary name in the same directory, flushed to the disk and moved
over the final name. A process that is killed in between leaves the temporary file behind; the next
writer of the same path overwrites it.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, per_process: bool = False) -> Iterator[Path]:
    """
    Yield a temporary path to write to; on success it replaces `path`, durably and in one step.

    Args:
        path: The final path. Its directory must exist.
        per_process: Put the process id into the temporary name, for paths that several processes
            may write at the same time.

    Raises:
        OSError: The file cannot be written or moved; `path` is as it was and the temporary file is
            removed.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "notes.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['notes.txt']
    """
    mark = f"{os.getpid()}.new" if per_process else "new"
    temporary = path.with_name(f".{path.name}.{mark}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush(path.parent)


def write_file(path: Path, content: bytes) -> None:
    """
    Write `content` to `path`, whole or not at all, and flush it to the disk.

    Raises:
        OSError: The file cannot be written; `path` is as it was.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_directory(directory: Path, files: Mapping[str, bytes]) -> None:
    """
    Write a directory that holds exactly `files`, in place of the directory that may be there.

    Args:
        directory: The final path; missing parents are created.
        files: Content by file name.

    Raises:
        OSError: A file cannot be written; the directory is as it was.
    """
    temporary = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, content in files.items():
        (temporary / name).write_bytes(content)
        _flush(temporary / name)
    _flush(temporary)
    if directory.exists():
        # A non-empty directory cannot be replaced in one step: move it away first.
        previous = directory.with_name(f".{directory.name}.old")
        shutil.rmtree(previous, ignore_errors=True)
        directory.replace(previous)
        temporary.replace(directory)
        shutil.rmtree(previous)
    else:
        temporary.replace(directory)
    _flush(directory.parent)


def _flush(path: Path) -> None:
    """Flush a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
