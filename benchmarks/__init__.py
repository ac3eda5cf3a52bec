"""Speed and memory, as ratios in one run: `make bench`. RESULTS.md is what the last full run wrote."""
