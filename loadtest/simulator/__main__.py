"""python -m loadtest.simulator --profile fast --port 9001"""

import argparse
import sys

from loadtest.simulator.launch import run
from loadtest.simulator.profile import PROFILES

WRONG_CALL = 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.simulator", description="A simulated inference endpoint.")
    parser.add_argument("--profile", default="fast", help=f"{', '.join(PROFILES)}; a YAML file; or - for JSON on stdin")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--key", help="env:NAME or file:PATH of the key that requests must bring")
    parser.add_argument("--tls-cert", help="PEM file; serves https")
    parser.add_argument("--tls-key", help="PEM file, where the certificate's file does not hold the key")
    parser.add_argument(
        "--truth", type=int, default=0, help="keep the true times of so many requests, at GET /truth/ID"
    )
    options = vars(parser.parse_args())
    try:
        run(options.pop("profile"), **options)
    except (ValueError, OSError) as error:
        print(f"simulate: {error}", file=sys.stderr)
        return WRONG_CALL
    return 0


if __name__ == "__main__":
    sys.exit(main())
