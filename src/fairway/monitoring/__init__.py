"""Watching models: drift, quality, performance with and without labels, and the incidents they become."""
