"""The dashboard: what monitors, incidents, schedules and the registry know, as pages.

seen.py      what monitors wrote, as far as pages show it
series.py    windows of a version, made few enough to draw
charts.py    series and columns as they are drawn, by charts.js or as SVG
words.py     numbers and times as people read them
frame.py     what all pages of one model have: the version, the time looked at, the tabs
overview.py, model.py (summary, route), drift.py, performance.py (data quality and slices, too)
incidents.py, work.py (schedules, batch runs), process.py
pages.py     the tables of pages and of what forms do

Pages are made on the server and are readable without scripts. `htmx` asks for the page again every few seconds and changes
what is different; `uPlot` draws series.
"""
