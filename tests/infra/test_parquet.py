"""Tables are read a row group at a time."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra import parquet

GROUPS, GROUP_BYTES = 16, 256 * 1024


class Counted(io.BytesIO):
    """Bytes that remember how many of them are held by someone who read them."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def test_what_is_read_follows_what_is_asked_for() -> None:
    random = np.random.default_rng(0)
    file = Counted()
    schema = pa.schema([("number", pa.int64()), ("noise", pa.binary())])
    with pq.ParquetWriter(file, schema) as writer:
        for group in range(GROUPS):
            noise = [random.bytes(GROUP_BYTES), b""]
            writer.write_table(pa.table([[2 * group, 2 * group + 1], noise], schema=schema))
    file.seek(0)
    numbers = []
    for count, batch in enumerate(parquet.batches(pq.ParquetFile(file), 1), 1):
        numbers += batch["number"].to_pylist()
        assert file.taken < (count + 4) / 2 * GROUP_BYTES * 1.5
    assert numbers == list(range(2 * GROUPS))
    some = parquet.batches(pq.ParquetFile(file), 8, ["number"])
    assert [batch.num_rows for batch in some] == [2] * GROUPS
