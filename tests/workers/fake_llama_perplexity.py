"""A fake of llama-perplexity: it computes nothing and prints the divergence in its first argument, or breaks.

Its output has the form of the real program's. Everything after the first argument is the command line of
llama-perplexity, of which a file in LLAMA_FAKE_FOLDER gets a line for each run.
"""

import os
import sys
import time
from pathlib import Path

mode, arguments = sys.argv[1], sys.argv[2:]
with (Path(os.environ["LLAMA_FAKE_FOLDER"]) / "arguments").open("a") as file:
    file.write(" ".join(arguments) + "\n")
if mode == "fails":
    print("fake: no such option", file=sys.stderr)
    sys.exit(3)
if mode == "hangs":
    time.sleep(600)
if "--kl-divergence" not in arguments:
    Path(arguments[arguments.index("--kl-divergence-base") + 1]).write_bytes(b"_logits_")
elif mode != "silent":
    print(f"Mean PPL(Q)                   :  24.574291 ±   1.549922\nMean    KLD:   {mode} ±  0.010482")
