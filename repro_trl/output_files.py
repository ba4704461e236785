"""Files that commands write: tried before any work, and never there in part."""

import contextlib
import errno
import glob
import os
from collections.abc import Iterator
from pathlib import Path


def check_output(path: str | os.PathLike) -> None:
    """Make the folder of a file that is to be written, and see whether it can be; else an `OSError` with the path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not target.exists() or target.is_file():
        temporary = _temporary(target)
        with _named(temporary, target):
            temporary.touch()
        temporary.unlink()


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """
    A path to write to, whose file takes the place of `path` once all is written; where that fails, what was there
    stays, and an `OSError` names `path`, whatever was being written. What is no regular file, such as /dev/stdout, is
    written to as it is.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        with _named(target, target):
            yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_remains(target)
    temporary = _temporary(target)
    try:
        with _named(temporary, target):
            yield temporary
            os.replace(temporary, target.resolve())
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    # In the folder of the file itself, where a link leads to it: files are not renamed from one disk to another.
    return target.resolve().with_name(f".part-{os.getpid()}-{target.name}")


def _remove_remains(target: Path) -> None:
    """Remove what processes that were killed left when they wrote the same file."""
    for path in target.resolve().parent.glob(f".part-*-{glob.escape(target.name)}"):
        process = path.name.split("-")[1]
        if process.isdigit() and not _is_alive(int(process)):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # someone else's
    return True


@contextlib.contextmanager
def _named(temporary: Path, target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in (temporary, target):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(target)) from error
