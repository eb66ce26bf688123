"""The read API: a folder for each resource.

In a folder `routes.py` has the endpoints, `parameters.py` (of a query string) or `request.py` (of a body) what they are
asked with, and `schemas.py` what they answer with; the other modules read the database. `health.py` is small enough to
be one file.
"""
