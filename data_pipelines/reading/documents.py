"""Records read as documents, by their numbers; many at once where they lie in a bucket."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from data_pipelines import records
from data_pipelines.errors import BadRecord
from data_pipelines.reading.bucket_files import READS_AT_ONCE
from data_pipelines.reading.record_index import RecordIndex


def read(index: RecordIndex, numbers: Iterable[int]) -> Iterator[records.Document | BadRecord]:
    """The documents, in order; a BadRecord in the place of each that cannot be used."""

    def one(number: int) -> records.Document | BadRecord:
        try:
            return records.deserialize(index.read(number))
        except BadRecord as error:
            return error

    if not index.in_bucket:
        yield from map(one, numbers)
        return
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        yield from pool.map(one, numbers)
