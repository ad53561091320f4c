"""mosec with batches of 64 and a wait of 1 ms: serve_mosec_batched.py MODEL PORT."""

import os
import sys
from pathlib import Path

os.environ["BATCH"] = "64"
os.execv(
    sys.executable, [sys.executable, str(Path(__file__).with_name("serve_mosec.py")), *sys.argv[1:]]
)
