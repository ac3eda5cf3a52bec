"""Do estimates and intervals tell the truth: CBPE beside NannyML on its own data, and how often intervals cover."""
