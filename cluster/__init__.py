"""Ray: where hosts run when one machine is not enough. Imports loadtest, never the reverse."""
