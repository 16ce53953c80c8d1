"""Which share of single changed bits in the pages of a Parquet file is found: `python benchmarks/parquet_damage.py`.

Found: reading is refused. Harmless: the rows are the same. Silent: other rows, and nobody is told.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from msft.core.errors import DataError
from msft.data.complaints import Complaints
from msft.data.tables import check_parquet

TRIALS = 400


def rows(draw: random.Random) -> pa.Table:
    texts = [" ".join("".join(draw.choices("abcdefgh", k=6)) for _ in range(8)) for _ in range(300)]
    return pa.table({"prompt": texts, "answer": [draw.randrange(4) for _ in range(300)]})


def refused(file: Path) -> bool:
    complaints = Complaints("d")
    check_parquet([file], complaints)
    try:
        complaints.check()
    except DataError:
        return True
    return False


def main() -> None:
    draw = random.Random(0)
    made = rows(draw)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.parquet"
        for compression in ("none", "snappy", "zstd"):
            for checksum in (False, True):
                pq.write_table(made, file, compression=compression, write_page_checksum=checksum)
                good = file.read_bytes()
                end = len(good) - 8 - int.from_bytes(good[-8:-4], "little")  # where the footer begins
                found = harmless = 0
                for _ in range(TRIALS):
                    content = bytearray(good)
                    content[draw.randrange(4, end)] ^= 1 << draw.randrange(8)
                    file.write_bytes(content)
                    if refused(file):
                        found += 1
                    else:
                        harmless += pq.read_table(file).equals(made)
                counts = f"found {found}, harmless {harmless}, silent {TRIALS - found - harmless} of {TRIALS}"
                print(f"{compression:6} checksum {'yes' if checksum else 'no ':3} {counts}")


if __name__ == "__main__":
    main()
