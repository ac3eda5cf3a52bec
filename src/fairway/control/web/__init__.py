"""The pages and the admin API of the control process.

gate.py      who is asking, and whether they may: keys, sessions, forged requests
session.py   sessions as signed cookies
service.py   what handlers may use
routes.py    what a route is, and how its handler is called
api.py       /api/v1
openapi.py   its description, from the same table
page.py      what a page is given, and what a form that was sent is
pages.py     pages for people: log-in, and how pages and actions are called; templates/ and static/ belong to them
dashboard/   the pages and what their forms do: `PAGES` and `ACTIONS` are where others are added
app.py       all of it composed
"""
