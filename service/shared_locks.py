"""Locks that processes forked from one share, and that one of them cannot keep by being killed."""

import ctypes
import fcntl
import mmap
import os
import tempfile
import time
import weakref
from errno import EBUSY, EOWNERDEAD
from threading import Lock
from types import TracebackType

ROOM = 128  # Bytes, of which a mutex of any system needs about half.
PAUSE = 0.0001  # Seconds between looks at a lock that is taken, which it is for microseconds.
SHARED, ROBUST = 1, 1  # PTHREAD_PROCESS_SHARED and PTHREAD_MUTEX_ROBUST of Linux.


class RobustLock:
    """A mutex in shared memory of which the kernel knows who holds it (robust, POSIX.1-2008).

    It is taken without letting go of the interpreter's lock. Who let go of that would hold this one until its turn
    comes again, milliseconds on a busy worker, and all other workers would wait that long.
    """

    def __init__(self) -> None:
        """Make one; raises OSError or AttributeError where the system has none."""
        self._memory = mmap.mmap(-1, ROOM)
        self._mutex = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(self._memory)))
        library = ctypes.PyDLL(None)
        self._try, self._free, self._mend = (
            library.pthread_mutex_trylock,
            library.pthread_mutex_unlock,
            library.pthread_mutex_consistent,
        )
        attributes = ctypes.create_string_buffer(ROOM)
        for status in (
            library.pthread_mutexattr_init(attributes),
            library.pthread_mutexattr_setpshared(attributes, SHARED),
            library.pthread_mutexattr_setrobust(attributes, ROBUST),
            library.pthread_mutex_init(self._mutex, attributes),
        ):
            _check(status)

    def __enter__(self) -> None:
        while (status := self._try(self._mutex)) == EBUSY:
            time.sleep(PAUSE)
        _check(self._mend(self._mutex) if status == EOWNERDEAD else status)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _check(self._free(self._mutex))


class FileLock:
    """A record lock on a file without a name, which the kernel takes back from a process that ends; a little slower.

    It is the process's, so that its threads are kept apart by another.
    """

    def __init__(self) -> None:
        self._threads = Lock()
        with tempfile.TemporaryFile() as file:
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
        except OSError:
            self._threads.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._threads.release()


def shared_lock() -> RobustLock | FileLock:
    """Return the better lock that the system has."""
    try:
        return RobustLock()
    except (AttributeError, OSError):
        return FileLock()


def _check(status: int) -> None:
    if status:
        raise OSError(status, os.strerror(status))
