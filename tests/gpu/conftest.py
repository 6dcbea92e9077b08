"""Read before torch begins with the GPU."""

import os

# cuBLAS takes its workspace as it begins, and in one process no test knows whether it is the first.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
