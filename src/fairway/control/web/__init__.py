"""The pages and the admin API of the control process.

gate.py      who is asking, and whether they may: keys, sessions, forged requests
session.py   sessions as signed cookies
service.py   what handlers may use
routes.py    what a route is, and how its handler is called
api.py       /api/v1
openapi.py   its description, from the same table
pages.py     pages for people: `PAGES` is where others are added; templates/ and static/ belong to them
app.py       all of it composed
"""
