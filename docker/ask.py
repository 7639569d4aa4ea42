"""
Send the requests of a client with an API key to a forecast server and check the answers.

The script waits until the server is ready, checks that a request without the key is refused, gets a
cold forecast of a series sent with the request, reports the series as observations, and checks that
the live state gives the same forecast.
"""

import argparse
import http.client
import json
import math
import sys
import time
from typing import Any
from urllib.parse import urlsplit

HORIZON = 6
MONTHS = [f"{year}-{month:02d}-01" for year in (2020, 2021, 2022) for month in range(1, 13)]
SALES = [100 + 2 * i + 20 * math.sin(math.tau * i / 12) for i in range(len(MONTHS))]


def call(
    url: str, path: str, body: dict[str, Any] | None = None, *, key: str | None = None
) -> tuple[int, Any]:
    """Return the status and the body of one request; the status is 0 if no server answers."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    headers = {"content-type": "application/json", **({"x-api-key": key} if key else {})}
    try:
        text = json.dumps(body) if body is not None else None
        connection.request("POST" if body is not None else "GET", path, text, headers)
        answer = connection.getresponse()
        content = answer.read()
    except OSError:
        return 0, None
    finally:
        connection.close()
    is_json = "json" in (answer.headers["content-type"] or "")
    return answer.status, json.loads(content) if is_json else content.decode()


def wait(url: str, path: str, seconds: float) -> None:
    """Request `path` until the status is 200; exit after `seconds`."""
    start = time.monotonic()
    while (answer := call(url, path))[0] != 200:
        if time.monotonic() - start > seconds:
            sys.exit(f"ask: {path} is not ready after {seconds:.0f} s: {answer}")
        time.sleep(0.25)
    write_line(f"{path} answered 200 after {time.monotonic() - start:.1f} s")


def check(url: str, key: str) -> None:
    """Send the requests of a client and check their answers."""
    name = "image-check"
    series = [{"unique_id": name, "ds": MONTHS, "y": SALES}]
    options = {"h": HORIZON, "level": [80]}
    status, problem = call(url, "/v1/forecasts", {"series": series, **options})
    expect(status == 401, f"a forecast without the key: {status}, {problem}")

    status, answer = call(url, "/v1/forecasts", {"series": series, **options}, key=key)
    expect(status == 200, f"a forecast: {status}, {answer}")
    cold = answer["forecasts"][0]
    low, middle, high = cold["lo-80"], cold["statecast"], cold["hi-80"]
    expect(cold["unique_id"] == name and len(middle) == HORIZON, f"wrong series: {cold}")
    expect(cold["ds"][0].startswith("2023-01-01"), f"wrong stamps: {cold['ds']}")
    expect(
        all(lo <= mid <= hi for lo, mid, hi in zip(low, middle, high, strict=True)),
        f"an interval does not contain its forecast: {cold}",
    )
    expect(all(50 < value < 400 for value in middle), f"not between 50 and 400: {middle}")
    write_line(f"cold: {', '.join(f'{value:.1f}' for value in middle)}")

    rows = [{"unique_id": name, "ds": ds, "y": y} for ds, y in zip(MONTHS, SALES, strict=True)]
    status, answer = call(url, "/v1/observations", {"observations": rows}, key=key)
    expect(status == 200, f"observations: {status}, {answer}")
    status, answer = call(url, "/v1/forecasts", {"unique_ids": [name], **options}, key=key)
    expect(status == 200, f"a forecast of the live series: {status}, {answer}")
    live = answer["forecasts"][0]["statecast"]
    expect(
        all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(live, middle, strict=True)),
        f"the live forecast {live} differs from the cold one {middle}",
    )
    write_line("live: the same")


def expect(holds: bool, message: str) -> None:
    """Exit with `message` unless the condition holds."""
    if not holds:
        sys.exit(f"ask: {message}")


def write_line(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Parse the options, wait for the server, and check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument(
        "--wait", type=float, default=60, help="seconds to wait until the server is ready"
    )
    parser.add_argument(
        "--ready", default="/readyz", help="path that answers 200 when the server is ready"
    )
    parser.add_argument("--key", help="API key; without it only readiness is checked")
    options = parser.parse_args()
    wait(options.url, options.ready, options.wait)
    if options.key:
        check(options.url, options.key)


if __name__ == "__main__":
    main()
