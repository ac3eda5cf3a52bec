"""Breast-cancer diagnosis from cell measurements: scikit-learn's bundled real data, thirty numbers a row."""
