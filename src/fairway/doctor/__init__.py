"""What `fairway doctor` knows: `facts` looks around the machine, `findings` judges what it saw.

Nothing here repairs anything; every finding carries the command that does.
"""
