"""A web application of its own that scores payments inside its process: no model server, the same checks."""
