"""`mms-admin dead`: what could not be processed, for people to look at, mend and send again."""
