"""The code that ingress and workers share. No process starts here."""
