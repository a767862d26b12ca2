"""`mms-admin plan`: from the measured cost of a postback to the size of an installation."""
