"""What ingress and workers must agree on. No process lives here."""
