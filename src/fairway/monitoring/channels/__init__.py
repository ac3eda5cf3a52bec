"""Where incidents are told: one file for each kind of channel. `opening.py` is the list."""
