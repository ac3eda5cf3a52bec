"""Engines that run a packaged model. One file per engine, all with the verbs load / predict / unload."""
