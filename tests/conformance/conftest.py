"""Lets the tests here import the second reader, which lies beside them and in no package."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
