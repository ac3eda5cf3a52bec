"""Values every other layer shares: contract, columns, route, bundle, errors, settings. No I/O here."""
