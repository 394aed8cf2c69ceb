"""Records by the examples that are made of them, fetched before their turn where that takes long.

A record in a bucket takes 20 to 80 ms to come, but any number may be asked for at once. So threads
that do nothing else fetch them, and what came is kept until its row is made.
"""

from collections.abc import Callable

from data_pipelines.errors import BadRecord
from data_pipelines.reading.record_index import RecordIndex


class ReadAhead:
    """Hands out each record once, from any thread; `number_of` says which an example is made of."""

    def __init__(self, records: RecordIndex, number_of: Callable[[int], int]):
        self._records, self._number_of = records, number_of
        self._fetched: dict[int, bytes | BadRecord] = {}
        self.fault: OSError | None = None  # of the disk or the network, the last

    def fetch(self, example: int) -> None:
        """Has the record of an example ready for `take`."""
        self._fetched[example] = self._read(example)

    def take(self, example: int) -> bytes:
        """The record, read now unless it is ready; raises BadRecord, or OSError as files do."""
        found = self._fetched.pop(example, None)
        if found is None:
            found = self._read(example)
        if isinstance(found, BadRecord):
            raise found
        return found

    def _read(self, example: int) -> bytes | BadRecord:
        try:
            return self._records.read(self._number_of(example))
        except BadRecord as error:
            return error
        except OSError as error:
            self.fault = error
            raise
