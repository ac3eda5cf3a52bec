"""The request path. Read it in this order: plane (the steps), live (what is loaded), validate, route, record."""
