"""Publish a job's progress at a steady pace, each message with the time at which it goes out.

Arguments: port of Valkey, job id, fence, messages a second, seconds.
"""

import json
import sys
import time

from redis import Redis

CHANNEL = "model-manager:changes"


def main() -> None:
    port, job_id, fence, rate, seconds = sys.argv[1:]
    valkey, began = Redis(port=int(port)), time.time()
    total = int(float(rate) * float(seconds))
    for number in range(total):
        time.sleep(max(0.0, began + number / float(rate) - time.time()))
        sent_at = time.time()
        progress = {
            "bytes_done": int(began % 1e6 * 1e6) + number,
            "bytes_total": 10**13,
            "verified_bytes": 0,
            "reused_bytes": 0,
            "files_done": 0,
            "files_total": 2,
            "bytes_per_second": 1.1e8,
            "eta_seconds": 321.0,
            "last_byte_at": "2026-01-02T00:00:00+00:00",
        }
        data = {"fence": int(fence), "stage": "DOWNLOADING", "message": str(sent_at), "progress": progress}
        valkey.publish(CHANNEL, json.dumps({"topic": f"job:{job_id}", "data": data}))
    print(total)


main()
