"""A model's pages of the dashboard as one file that opens anywhere, without a server and without scripts.

gathered.py   what is told, from the stores
drawing.py    charts as SVG: the pages draw the same values with uPlot
page.py       the file
"""
