"""Lets the tests here share a module: files of tests are imported one by one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
