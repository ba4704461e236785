"""
The processes of an evaluation. Where they meet, all of them come, whatever their share of the work is: none skips a
meeting because it has nothing to do, and an error of one ends the others too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from ..command_line import exit_status

T = TypeVar("T")


class FailedElsewhereError(Exception):
    """Another process has failed, and says how."""

    def __init__(self, status: int) -> None:
        super().__init__("another process failed")
        self.status = status


class Team:
    """
    The processes of an evaluation, in groups of neighbours that hold one model together and sample the same
    completions, as under tensor parallelism. A group is one worker, for which the first of them writes. A `ValueError`
    if the processes cannot be shared out in groups of that size.
    """

    def __init__(self, state: PartialState, size: int = 1) -> None:
        if state.num_processes == 1:
            size = 1  # the engine starts the processes it needs
        if state.num_processes % size:
            raise ValueError(
                f"vllm_tensor_parallel_size={size} does not divide the number of processes, {state.num_processes}."
            )
        self.state, self.size = state, size
        self.worker, self.workers = state.process_index // size, state.num_processes // size
        self.writes = state.process_index % size == 0

    def from_main(self, value: T) -> T:
        """The main process's value, on every process."""
        values = [value]
        broadcast_object_list(values)
        return values[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """
        A part of the work at whose end all processes meet. What it does must not need the other processes. An error of
        one is raised there as it is, and as a `FailedElsewhereError` on the others.
        """
        error = None
        try:
            yield
        except Exception as caught:  # raised again below, when the others know
            error = caught
        statuses = gather_object([None if error is None else exit_status(error)])
        failed = [rank for rank, status in enumerate(statuses) if status is not None]
        if failed and failed[0] != self.state.process_index:
            raise FailedElsewhereError(statuses[failed[0]]) from error
        if error is not None:
            raise error
