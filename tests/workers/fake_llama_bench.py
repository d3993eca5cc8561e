"""A fake of llama-bench: it measures nothing and prints figures, or breaks, depending on its first argument.

Its output has the form of llama-bench's JSON. Everything after the first argument is the command line of
llama-bench. The folder in LLAMA_FAKE_FOLDER gets its arguments and the number of calls.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

mode, arguments = sys.argv[1], sys.argv[2:]
options = dict(zip(arguments[::2], arguments[1::2], strict=True))
counter = Path(os.environ["LLAMA_FAKE_FOLDER"]) / "runs"
runs = int(counter.read_text()) if counter.exists() else 0
counter.write_text(str(runs + 1))
(counter.parent / "arguments").write_text("\n".join(arguments))
(counter.parent / "environment").write_text("\n".join(f"{k}={v}" for k, v in os.environ.items()))
(counter.parent / "pid").write_text(str(os.getpid()))

if mode == "hangs":
    time.sleep(600)
if mode == "endless":
    while True:
        sys.stdout.write("0" * 2**16)
if mode == "crashes" or (mode == "crashes-later" and runs > 0):
    print("fake: a last word", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGABRT)
if mode == "refuses":
    print("error: invalid parameter for argument: -lm", file=sys.stderr)
    sys.exit(1)
if mode == "text":
    print("| model | size |")
    sys.exit(0)
if mode == "silent":
    sys.exit(0)

nanoseconds = {"fast": 1000, "crashes-later": 1000, "other-work": 1000, "slow": 10**13}[mode]
repetitions = int(options["-r"])
tests = [(int(options["-p"]), 0), (0, int(options["-n"]))]
if mode == "other-work":
    tests = tests[:1]
print(
    json.dumps(
        [
            {
                "build_commit": "1234567",
                "build_number": 42,
                "n_prompt": prompt,
                "n_gen": generated,
                "n_depth": int(options["-d"]),
                "samples_ns": [nanoseconds] * repetitions,
            }
            for prompt, generated in tests
        ]
    )
)
