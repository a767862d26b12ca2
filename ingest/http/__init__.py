"""HTTP: from a connection to an answer, with limits on what each connection may cost."""
