"""Download the benchmark's repository with huggingface_hub; prints the seconds behind the imports."""

import sys
import time

from huggingface_hub import snapshot_download


def main() -> None:
    endpoint, directory = sys.argv[1:]
    began = time.monotonic()
    snapshot_download("bench/big", cache_dir=directory, endpoint=endpoint, token=False)
    print(time.monotonic() - began)


if __name__ == "__main__":
    main()
