"""Recommendations: the ten films of each user computed at night, and again by the model while a user is watching."""
