"""`mms-admin topology upgrade`: a queue `mms.dead` with the arguments of this release."""
