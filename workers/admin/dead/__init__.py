"""`mms-admin dead`: list, show, replay, purge and export dead letters."""
