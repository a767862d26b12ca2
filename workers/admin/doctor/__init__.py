"""`mms-admin doctor`: what is wrong with this site, and what to do about each."""
