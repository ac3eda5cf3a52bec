"""The command line: one file per verb, each thin. `main.py` finds the verb's file only when it is used."""
