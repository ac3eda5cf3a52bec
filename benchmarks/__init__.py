"""Speed and memory, as ratios in one run: `make bench`. RESULTS.md is what the last full run wrote."""

import os

os.environ.setdefault("FAIRWAY_CONTROL_ENABLED", "false")
"""What is measured is serving; the control process would take its share of two cores."""
